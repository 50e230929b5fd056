"""Every field of a config and its default; the other configs change what they must."""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """The mended defaults: hindsight relabeling as we would run it (see configs/paper.py)."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # of every random draw of the run
    # hir | farl, the same as raft (imitate right outputs only) | sft (true answers) | reinforce |
    # rloo | grpo | ppo | nft | topr | w_reinforce | maxrl | package.module:Class (docs/methods.md)
    config.algorithm = "hir"
    config.iterations = 10  # N: rounds of sampling and training
    # auto (the source's own scorer if it has one, choice where there are options, else exact) |
    # exact | choice | number | list | order | math | reference | chrf:0.6 | bleu:0.3 (likeness
    # needed) | package.module:function | final, or final: before any of these, as in final:number,
    # for the answer that a longer text comes to; several with commas between judge together
    config.verifier = "auto"

    config.reward = reward = ml_collections.ConfigDict()
    reward.threshold = 0.5  # of what a verifier gives, 0 to 1: from here on an output is right
    reward.seconds = 600.0  # that a verifier of your own may take for an output; 0 = any
    reward.weights = ()  # of the rewards of several verifiers, in their order; () = all the same

    config.model = model = ml_collections.ConfigDict()
    model.path = ""  # Hugging Face folder, or hub name such as google/flan-t5-base
    # Of a hub name: a commit, tag or branch; '' = main. A run keeps the commit that it began with
    model.revision = ""
    model.dtype = "float32"  # of activations and products: float32 | bfloat16; weights stay float32

    config.instruction = instruction = ml_collections.ConfigDict()
    instruction.correct = "Solve the question with correct answer."  # p_correct
    instruction.wrong = "Solve the question with wrong answer."  # p_wrong
    # Facts that the verifier names: what asks for each of them, and what against it, behind the
    # above in the order of their names; of hir alone; no flags, see configs/facts.py
    instruction.facts = ml_collections.ConfigDict()

    config.data = data = ml_collections.ConfigDict()
    data.source = "generated"  # generated | bigbench | bbh | jsonl | reasoning_gym
    data.task = ""  # a task's name, or several with commas between
    data.path = ""  # bbh: a file or folder; jsonl: a file, .jsonl or .csv, with .gz or without
    data.dev_path = ""  # jsonl: development questions of their own; '' splits them off `path`
    data.test_path = ""  # jsonl: test questions of their own; '' splits them off `path`
    # jsonl: what the fields of a record are called, '' by their usual names. A path as choices.text
    # goes into objects and lists; several stand with commas between (docs/own_task.md)
    data.fields = fields = ml_collections.ConfigDict()
    fields.question = ""  # texts, put below one another
    fields.answer = ""  # an answer, or a list of all that are accepted
    fields.index = ""  # in place of an answer: the number of the right option, from 0
    fields.options = ""  # a list of texts, or one text each
    fields.labels = ""  # what the answer calls the options, in their order
    fields.premise = ""  # what questions of one story share
    fields.id = ""  # unique among the records
    fields.after = ""  # no path: the answer is what stands behind the last of these, such as "####"
    data.bigbench_dir = ""  # bigbench: a folder laid out like benchmark_tasks/; '' downloads
    data.tfds_dir = ""  # bigbench: where prepared data is kept; '' is TFDS's default
    data.protocol = "premise"  # premise (shuffled options, stories never parted) | paper
    data.dev_fraction = 0.1  # of the premises; chooses the best checkpoint; fixed if generated
    data.test_fraction = 0.2  # of the premises; for the closing table only; fixed if generated
    data.seed = 1  # of the split and the option shuffle
    data.shuffle_options = True  # protocol=premise: options of a question in random order
    data.max_train = 0  # questions at most; 0 = all
    data.max_dev = 0  # questions at most; 0 = all
    data.max_test = 0  # questions at most; 0 = all
    data.size = 1000  # generated, reasoning_gym: questions in all splits
    data.difficulty = 3  # generated: things in a question; the range depends on the task
    # reasoning_gym: level of the family's curriculum, from 0; None = the family's own defaults
    data.level = config_dict.placeholder(int)
    data.max_source_tokens = 512  # longest prompt, EOS included
    data.too_long = "error"  # prompts beyond that: error | drop (counted in the log)
    data.unwritable = "error"  # answers that the tokenizer cannot write: error | drop (counted)
    # Prompts of two sides that the tokenizer cannot tell apart: error | drop (counted), from train
    # if the other is in dev or test, from dev if it is in test
    data.alike = "error"

    config.sample = sample = ml_collections.ConfigDict()
    sample.samples = 4  # R: outputs a question and iteration
    sample.temperature = 1.0  # τ; 0 = the likeliest tokens
    # Likeliest tokens kept; 0 = all. ε puts mass on junk that this cuts off. None = 50, or 0 for a
    # method with ratios of the whole policy
    sample.top_k = config_dict.placeholder(int)
    sample.top_p = 1.0  # probability kept
    # Log how far samples are from the starting model, of which a copy is kept then
    sample.kl_to_start = False
    # Log what the policy finds of each sample under the wrong-answer instruction as well
    sample.opposite = False
    # γ: draw away from the wrong-answer instruction, in the online phase and in --mode=sample, at
    # twice the work; 0 = not at all
    sample.guidance = 0.0
    sample.guidance_cutoff = 0.1  # α: of tokens at least α times as likely as the likeliest
    sample.rerank = False  # of --mode=sample: samples come sorted by their margin
    # Draw these outputs and no others: options (the letters of a question's) | a file with an
    # output a line; '' = any (docs/decoding.md)
    sample.among = ""
    # Of --mode=sample: the `samples` best of a beam search of so many beams; 1 = draw instead
    sample.beams = 1
    sample.max_new_tokens = 32  # longest output and training target, EOS included
    sample.rows = 0  # outputs decoded at once on a device; 0 = by the memory at hand
    sample.dtype = config_dict.placeholder(str)  # of decoding; None = model.dtype

    config.replay = replay = ml_collections.ConfigDict()
    replay.keep_iterations = 4  # K: iterations of samples that are trained on; 0 = all
    # Repeats of (question, output) are dropped: all | iteration | none; or count for as many: count
    replay.dedup = "all"
    replay.max_size = 0  # samples trained on in an iteration, drawn at random; 0 = all
    replay.hold_out = 0.0  # share of the samples left out in an iteration, drawn at random

    config.sub_output = sub_output = ml_collections.ConfigDict()
    sub_output.mode = "suffix"  # full | suffix | window (the reference code's)
    sub_output.prob = 0.5  # suffix: probability of a start inside the output

    config.loss = loss = ml_collections.ConfigDict()
    loss.smoothing = 0.2  # ε: label smoothing
    # All tokens of a batch weigh the same: tokens; or all its examples, by the mean over their
    # tokens: examples; or by the sum, divided by max_new_tokens: constant. None = examples for
    # grpo, tokens for the others
    loss.average = config_dict.placeholder(str)
    loss.contrastive = "pairwise"  # pairwise | in_batch (the paper's Eq. 4); of hir alone
    loss.contrastive_weight = 1.0  # α; 0 leaves the term out
    # What the pairwise term compares of an output under two instructions: the mean of its tokens'
    # log-probabilities (the reference code's) or their sum, its own log-probability: mean | sum
    loss.contrastive_score = "mean"
    # ε_c: smoothing of the pairwise term; None = ε
    loss.contrastive_smoothing = config_dict.placeholder(float)
    # β: > 0 rewards entropy. None = 0.001 for methods that imitate (hir, farl, sft), 0 for others
    loss.entropy_weight = config_dict.placeholder(float)
    loss.kl_weight = 0.0  # κ: of KL(policy ‖ starting model) under the sampling prompt

    config.hir = hir = ml_collections.ConfigDict()
    # Share of right pairs in what is trained on, by weight; 0 = as they come. Where repeats are
    # dropped a good model's pairs are mostly wrong: it learns its mistakes, draws more of them and
    # loses with each iteration what it could do. With 0.9 it keeps that, and parts the instructions
    # further (docs/results.md).
    hir.share_right = 0.9
    hir.wrong_weight = 1.0  # of wrong outputs beside right ones in the supervised term
    # Where there are instruction.facts: how likely a training instruction speaks of each of them
    hir.shown = 1.0
    hir.flip = "one"  # what the opposite instruction asks against: one (right or a fact) | all

    config.ratio = ratio = ml_collections.ConfigDict()  # π/μ of the methods that have one
    # μ: the whole, untempered policy, so that ratios begin at 1; or what was really drawn from,
    # tempered and truncated: drawn
    ratio.behaviour = "whole"
    ratio.clip_low = 0.2  # of rloo with clip, grpo, ppo: clipped below 1 - clip_low
    ratio.clip_high = 0.2  # and above 1 + clip_high

    config.reinforce = reinforce = ml_collections.ConfigDict()
    reinforce.baseline = "mean"  # taken from every reward: mean (of all samples) | none

    config.rloo = rloo = ml_collections.ConfigDict()
    rloo.clip = False  # clip ratios, for several epochs on the same samples

    config.grpo = grpo = ml_collections.ConfigDict()
    grpo.divide_by_spread = True  # advantages by the deviation of a question's rewards
    grpo.skip_flat = False  # leave out questions whose samples are all right or all wrong

    config.ppo = ppo = ml_collections.ConfigDict()
    ppo.discount = 1.0  # γ, a token
    ppo.trace = 0.95  # λ of the generalized advantage estimate
    ppo.value_weight = 0.5  # of the value loss
    ppo.value_clip = 0.2  # how far a value may move from its old one; 0 = as far as it likes
    ppo.whiten = True  # advantages to mean 0 and variance 1 over an iteration
    ppo.kl_coefficient = 0.05  # β: reward taken a nat away from the starting model; 0 = none
    ppo.kl_target = 0.0  # nats an output that β adapts to; 0 = β stays

    config.nft = nft = ml_collections.ConfigDict()
    nft.least = 1.0  # ε: likelihood ratio of the implied wrong policy that is the least
    nft.divide_by_spread = True  # questions weigh sqrt((1 - p) / p), as in grpo; or 1 - p

    config.topr = topr = ml_collections.ConfigDict()
    topr.low = 0.0  # ratios of wrong outputs are clipped to this
    topr.high = 1.0  # and to this

    config.w_reinforce = w_reinforce = ml_collections.ConfigDict()
    w_reinforce.right_weight = 0.1  # λ: of right outputs beside 1 of wrong ones; 0 = NSR

    config.train = train = ml_collections.ConfigDict()
    # E: passes over the buffer an iteration; one for methods of the plain gradient (reinforce, rloo
    # without clip, w_reinforce, maxrl)
    train.epochs = 10
    train.batch_size = 64  # B: pairs a step
    # Parts that a batch is computed in, to save memory; 0 = the fewest that fit a device, and on a
    # CPU by the batch's size
    train.accumulation = 1
    train.remat = False  # compute activations again for the gradient instead of keeping them
    # What is kept all the same: inputs of layers and what products give, so that none is made twice
    # | inputs alone, for long sources: products | inputs
    train.remat_keeps = "products"
    train.logits_mib = 64  # float32 logits that a device computes at a time in the loss
    train.optimizer = "adamw"  # adamw | adafactor (less memory; a rate moves weights as far)
    # After the warm-up, constant. None = 5e-4 for methods that imitate, 3e-5 for others
    train.learning_rate = config_dict.placeholder(float)
    train.warmup_steps = 0  # optimizer steps of linear growth
    train.weight_decay = 0.0  # decoupled
    train.clip_norm = 1.0  # largest global norm of a gradient; 0 = any
    train.dropout_rate = 0.0  # of activations in training
    train.log_every = 10  # steps between lines of metrics.jsonl

    # Train adapters beside weights that stay as they are (docs/adapters.md)
    config.lora = lora = ml_collections.ConfigDict()
    lora.rank = 0  # r, of 1 or more; 0 = train all weights
    lora.alpha = 32.0  # α: what adapters add is scaled by α / r
    # Matrices that have adapters, with commas between: q | k | v | o | wi | wi_0 | wi_1 | wo |
    # attention | feed_forward | all
    lora.targets = "all"
    lora.base_dtype = "float32"  # of the weights beside them: float32 | bfloat16, half the memory
    lora.path = ""  # a PEFT folder of adapters to begin with; '' = new ones

    config.buckets = buckets = ml_collections.ConfigDict()
    buckets.source = 3  # lengths that prompts are padded to; more pad less and compile longer
    buckets.target = 1  # lengths that targets are padded to

    config.evaluate = evaluate = ml_collections.ConfigDict()
    evaluate.every = 1  # iterations between evaluations on the development questions
    evaluate.split = "test"  # of --mode=eval: train | dev | test
    # Other ways of answering, in --mode=eval and at the end of a run: R, or several, of which
    # samples one is chosen by majority and by its margin
    evaluate.samples = ()
    evaluate.guidance = ()  # and γ, or several, that greedy answers are guided by
    evaluate.among = ""  # of all evaluations: answers are these and no others, see sample.among
    evaluate.beams = 1  # of all evaluations: beams that answers are searched with; 1 = greedy

    config.beam = beam = ml_collections.ConfigDict()  # of sample.beams and evaluate.beams
    beam.length_penalty = 1.0  # outputs are ranked by log-probability / tokens^this
    # A search ends when no beam scores more, as long as it is (false) or ever could (never), or
    # when it has as many outputs as beams (true); as in Transformers
    beam.early_stopping = "false"

    config.diagnose = diagnose = ml_collections.ConfigDict()  # of --mode=diagnose
    diagnose.questions = 64  # training questions that are asked at most, drawn by the seed
    diagnose.samples = 8  # outputs to each of them
    diagnose.both = False  # the run is to teach wrong answers too, where they are asked for

    config.report = report = ml_collections.ConfigDict()  # docs/report.md
    report.every = 1  # iterations between writings of the workdir's report.html; 0 = never
    # In a page of each run: of the newest iterations so many that they have no more; 0 = all
    report.samples = 20_000

    # Where figures are shown besides, with commas between: tensorboard (in the workdir) | trackio |
    # wandb (sends them away); '' = nowhere; a resumed run goes on there (docs/running.md)
    config.trackers = "tensorboard"

    config.checkpoint = checkpoint = ml_collections.ConfigDict()
    checkpoint.every_steps = 500  # optimizer steps between checkpoints inside an iteration
    checkpoint.keep = 2  # newest ones kept, beside the best

    config.mesh = mesh = ml_collections.ConfigDict()
    mesh.data = -1  # devices that split the batch; -1 = all that the others leave
    mesh.fsdp = 1  # devices that split the batch, parameters and optimizer state
    mesh.tensor = 1  # devices that split heads, feed-forward width and vocabulary
    return config
