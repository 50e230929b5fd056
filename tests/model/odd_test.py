"""Odd and hostile model folders, each with its whole sentence."""

import json
import shutil
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from hir_jax.hindsight import limit
from hir_jax.model import hf, hub, torch_file
from tests.model import pickles
from tests.model.hf_test import edit_json, fault, load

BIN = pickles.FILE
DAMAGED = (
    "{bin}: expected a whole file of torch.save, found another or a damaged one ({}). Copy or "
)
DAMAGED += "download it again."
CODE = "{bin}: expected tensors by name and no code, found {}. None of it was run. Take the model "
CODE += "from whom you trust, as safetensors."


def pickled(value, name="shared.weight"):
    """Puts an archive with one value in place of the weights."""
    return lambda folder: (folder / BIN).write_bytes(
        pickles.with_pickle(pickles.named(value, name))
    )


def whole(pickle):
    return lambda folder: (folder / BIN).write_bytes(pickles.with_pickle(pickle))


def packed(compression=zipfile.ZIP_STORED, **changed):
    """Puts an archive with other files in it in place of the weights; None takes one out."""
    changed = {name.replace("_", "/"): content for name, content in changed.items()}

    def make(folder):
        files = pickles.entries() | changed
        files = {name: content for name, content in files.items() if content is not None}
        (folder / BIN).write_bytes(pickles.archive(files, compression))

    return make


def content(made):
    """Puts these bytes in place of the weights."""
    return lambda folder: (folder / BIN).write_bytes(made)


def cut(recorded, kept):
    return content((recorded / BIN).read_bytes()[:kept])


def only(*names):
    """Takes the weights away, and puts empty files of these names there."""

    def make(folder):
        (folder / BIN).unlink()
        for name in names:
            (folder / name).touch()

    return make


def index(weight_map, name=hf.INDEX):
    """An index in place of the weights."""

    def make(folder):
        (folder / BIN).unlink()
        (folder / name).write_text(json.dumps({"weight_map": weight_map}))

    return make


def stored(**changes):
    """The weights as safetensors, of which some are others."""

    def make(folder):
        (folder / BIN).unlink()
        weights = safetensors.numpy.load_file(folder / "expected" / hf.WEIGHTS)
        changed = {name.replace("__", "."): array for name, array in changes.items()}
        safetensors.numpy.save_file(weights | changed, folder / hf.WEIGHTS)

    return make


def renamed(folder, prefix):
    """The weights as safetensors, with this before their names."""
    (folder / BIN).unlink()
    weights = safetensors.numpy.load_file(folder / "expected" / hf.WEIGHTS)
    changed = {prefix + name: array for name, array in weights.items()}
    safetensors.numpy.save_file(changed, folder / hf.WEIGHTS)


def of_a_run(folder):
    """A run's workdir, which has a config.json of its own."""
    (folder / BIN).unlink()
    (folder / "checkpoints").mkdir()


def twice(folder):
    """An archive with a file twice, of which readers take one or the other."""
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(folder / BIN, "a") as made:
        made.writestr("pytorch_model/data/0", bytes(96 * 4))


def overlapping(folder):
    """An archive in which two names have the same bytes."""
    made = bytearray(pickles.archive(pickles.entries()))
    first, second = (made.rindex(f"archive/data/{n}".encode()) for n in (18, 19))
    made[second - 4 : second] = made[first - 4 : first]  # where an entry's bytes are
    (folder / BIN).write_bytes(made)


def nested(depth=200):
    """A pickle's tuple of twice a tuple of twice ..., of 2**depth parts."""
    return b")" + b"".join(b"q\0h\0\x86" for _ in range(depth))


HTML = b"<!doctype html><title>Sign in</title>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
LEGACY = pickles.named(pickles.tensor())
VIEW = b"(" + pickles.text("1") + pickles.number(0) + pickles.number(1) + b"t"

ODD = {
    # Files that are no weights, or not all of them.
    "empty": (content(b""), DAMAGED, "neither an archive nor a pickle"),
    "a page": (content(HTML), DAMAGED, "neither an archive nor a pickle"),
    "safetensors by that name": (
        content((pickles.ZIP / "expected" / hf.WEIGHTS).read_bytes()),
        *(DAMAGED, "neither an archive nor a pickle"),
    ),
    "a Git LFS pointer": (
        content(LFS),
        "{bin}: expected weights, found Git LFS's note of where they are. Run `git lfs pull` in "
        "its folder, or download the file itself.",
    ),
    "an archive cut short": (
        cut(pickles.ZIP, 9000),
        *(DAMAGED, "BadZipFile: File is not a zip file"),
    ),
    "an old file cut in its numbers": (cut(pickles.LEGACY, -9), DAMAGED, "numbers cut short"),
    "an old file cut in its names": (
        cut(pickles.LEGACY, 900),
        *(DAMAGED, "pickle exhausted before seeing STOP"),
    ),
    # Archives.
    "compressed": (
        packed(zipfile.ZIP_DEFLATED),
        *(DAMAGED, "'archive/data.pkl' compressed, which torch never does"),
    ),
    "a bomb": (
        packed(zipfile.ZIP_BZIP2, data_0=bytes(2**24)),
        *(DAMAGED, "'archive/data.pkl' compressed, which torch never does"),
    ),
    "a file twice": (twice, DAMAGED, "'pytorch_model/data/0' twice"),
    "files that overlap": (overlapping, DAMAGED, "'archive/data/19' where something else is"),
    "big-endian": (packed(byteorder=b"big"), DAMAGED, "numbers that are not little-endian"),
    "a pickle too large": (
        whole(bytes(torch_file.MOST_BYTES + 1)),
        *(DAMAGED, "'archive/data.pkl' of more than 16777216 bytes"),
    ),
    "a storage that is missing": (
        packed(data_0=None),
        *(DAMAGED, "no numbers of 'shared.weight'"),
    ),
    "a storage that is longer": (
        packed(data_0=bytes(97 * 4)),
        *(DAMAGED, "another count of numbers than that of 'shared.weight'"),
    ),
    # Files from before torch 1.6.
    "another magic number": (
        content(pickles.legacy(LEGACY, magic=7)),
        *(DAMAGED, "no magic number of torch"),
    ),
    "an old big-endian file": (
        content(pickles.legacy(LEGACY, little=b"\x89")),
        *(DAMAGED, "numbers that are not little-endian"),
    ),
    "an old file of numbers without end": (
        content(pickles.legacy(LEGACY, ("0",), struct.pack("<Q", 2**63))),
        *(DAMAGED, "numbers cut short"),
    ),
    "an old file's view of a storage": (
        pickled(pickles.tensor(pickles.storage(view=VIEW))),
        *(DAMAGED, "a storage of another kind"),
    ),
    # Pickles.
    "another name": (
        pickled(b"cposix\nsystem\n" + pickles.text("true") + b"\x85R"),
        *(CODE, "the name 'posix.system'"),
    ),
    "numbers of another type": (
        pickled(pickles.tensor(pickles.storage(kind="ctorch\nLongStorage\n"))),
        *(CODE, "the name 'torch.LongStorage'"),
    ),
    "another step": (whole(b"\x80\x04\x95" + bytes(8) + b"N."), CODE, "the pickle's step FRAME"),
    "a storage that is called": (
        pickled(b"ctorch\nFloatStorage\n)R"),
        *(CODE, "the pickle's step REDUCE on another thing than a tensor"),
    ),
    "a text that is called": (
        pickled(pickles.text("system") + b")R"),
        *(CODE, "the pickle's step REDUCE on another thing than a tensor"),
    ),
    "a state that a tensor is given": (
        pickled(pickles.tensor() + b"}b"),
        *(CODE, "the pickle's step BUILD on another thing than a dict"),
    ),
    "no dict": (whole(b"\x80\x02]."), DAMAGED, "no dict of tensors"),
    "a number among the tensors": (pickled(b"K\1"), DAMAGED, "no tensor under 'shared.weight'"),
    "tensors in a dict": (
        pickled(pickles.named(pickles.tensor())[2:-1], "state_dict"),
        *(DAMAGED, "no tensor under 'state_dict'"),
    ),
    "a name that is nested": (
        whole(b"\x80\x02}" + nested() + b"Ns."),
        *(DAMAGED, "items of no dict of names"),
    ),
    "more steps than any T5": (
        whole(b"\x80\x02" + b"N" * 2**20 + b"."),
        *(DAMAGED, "a pickle of more than 1048576 steps"),
    ),
    "too little on the stack": (
        whole(b"\x80\x02\x87."),
        *(DAMAGED, "a pickle that takes more than it has"),
    ),
    # Tensors.
    "a tensor beyond its storage": (
        pickled(pickles.tensor(offset=1)),
        *(DAMAGED, "'shared.weight' beyond its numbers"),
    ),
    "a tensor before its storage": (
        pickled(pickles.tensor(offset=-1)),
        *(DAMAGED, "'shared.weight' beyond its numbers"),
    ),
    "a tensor of one number many times": (
        pickled(pickles.tensor(shape=(2**20, 2**20), strides=(0, 0))),
        *(DAMAGED, "'shared.weight' beyond its numbers"),
    ),
    "a tensor backwards": (
        pickled(pickles.tensor(offset=95, strides=(-8, -1))),
        *(DAMAGED, "'shared.weight' beyond its numbers"),
    ),
    "a tensor of nothing": (
        pickled(pickles.tensor(shape=(0, 8))),
        *(DAMAGED, "a shape of 'shared.weight' that no T5 has"),
    ),
    "a tensor of nine axes": (
        pickled(pickles.tensor(shape=(1,) * 9, strides=(1,) * 9)),
        *(DAMAGED, "a shape of 'shared.weight' that no T5 has"),
    ),
    "a tensor of huge numbers": (
        pickled(pickles.tensor(shape=(2**2000,), strides=(2**2000,))),
        *(DAMAGED, "'shared.weight' beyond its numbers"),
    ),
    # Folders.
    "nothing": (
        only(),
        "{folder}: expected model.safetensors or pytorch_model.bin, found neither. Copy or "
        "download the model's weights into the folder.",
    ),
    "a run's workdir": (
        of_a_run,
        "{folder}: expected model.safetensors or pytorch_model.bin, found the workdir of a run. "
        "Export its model first, by --mode=export --workdir={folder} --output=FOLDER, and give "
        "that folder.",
    ),
    "flax": (
        only("flax_model.msgpack"),
        "{folder}: expected model.safetensors or pytorch_model.bin, found only flax_model.msgpack. "
        'Convert it once, where transformers 4, torch and flax are installed: python -c "from '
        "transformers import T5ForConditionalGeneration as M; M.from_pretrained('{folder}', "
        "from_flax=True).save_pretrained('converted')\", copy the tokenizer files beside it, and "
        "give that folder.",
    ),
    "tensorflow": (
        only("tf_model.h5", "rust_model.ot"),
        "{folder}: expected model.safetensors or pytorch_model.bin, found only rust_model.ot, "
        "tf_model.h5. Convert it once, where transformers 4, torch and tensorflow are installed: "
        'python -c "from transformers import T5ForConditionalGeneration as M; '
        "M.from_pretrained('{folder}', from_tf=True).save_pretrained('converted')\", copy the "
        "tokenizer files beside it, and give that folder.",
    ),
    "rust": (
        only("rust_model.ot"),
        "{folder}: expected model.safetensors or pytorch_model.bin, found only rust_model.ot. Copy "
        "or download the model's weights into the folder.",
    ),
    "a variant": (
        only("model.fp16.safetensors"),
        "{folder}: expected model.safetensors or pytorch_model.bin, found only a variant, "
        "model.fp16.safetensors. Rename it to model.safetensors where you mean that one.",
    ),
    "parts without an index": (
        only(*(f"pytorch_model-0000{i}-of-00006.bin" for i in range(1, 7))),
        "{folder}: expected model.safetensors or pytorch_model.bin, found parts of one, "
        "pytorch_model-00001-of-00006.bin, pytorch_model-00002-of-00006.bin, "
        "pytorch_model-00003-of-00006.bin, pytorch_model-00004-of-00006.bin and 2 more, but no "
        "index that says what is in them. Copy pytorch_model.bin.index.json too.",
    ),
    "an index of parts that are missing": (
        index({"shared.weight": "model-00001-of-00002.safetensors"}),
        "{folder}/model.safetensors.index.json names files that are not there: "
        "model-00001-of-00002.safetensors. Copy or download them too.",
    ),
    "an index of pickles elsewhere": (
        index({"shared.weight": "../weights.bin"}, "pytorch_model.bin.index.json"),
        "{folder}/pytorch_model.bin.index.json: expected names of files beside it, found "
        "'../weights.bin'. Download the model again, from whom you trust.",
    ),
    "an index of nothing": (
        index(3),
        "{folder}/model.safetensors.index.json: expected JSON with a weight_map, found 3. Download "
        "it again.",
    ),
    "named weights elsewhere": (
        lambda folder: edit_json(folder / "config.json", transformers_weights="../x.safetensors"),
        "{folder}/config.json: expected transformers_weights to name safetensors beside it, found "
        "'../x.safetensors'. Remove the field, or name a file in the folder.",
    ),
    "named weights that are missing": (
        lambda folder: edit_json(folder / "config.json", transformers_weights="x.safetensors"),
        "{folder}: expected x.safetensors, which config.json has as transformers_weights, found "
        "none. Copy it there, or remove the field.",
    ),
    "names within another model": (
        lambda folder: renamed(folder, "model."),
        "{folder}: expected weights by the names that transformers gives them, such as "
        "shared.weight, found model.shared.weight: all have 'model.' before them, as when a model "
        "inside another is saved. Save the inner one by its save_pretrained, or take that off the "
        "names.",
    ),
    "quantized": (
        lambda folder: edit_json(folder / "config.json", quantization_config={"bits": 8}),
        "{folder}/config.json: expected weights as they are, found quantization_config. Give the "
        "model that was quantized; where these weights are whole, remove the field.",
    ),
    "no config": (
        lambda folder: (folder / "config.json").unlink(),
        "{folder}: expected a config.json (Hugging Face layout), found none. Copy the model's "
        "beside its weights.",
    ),
    "code": (
        lambda folder: edit_json(folder / "config.json", auto_map={"AutoModel": "code.M"}),
        "{folder}/config.json: expected no code, found auto_map, which asks to run code that comes "
        "with the model; that is never run. Where the model needs none, remove the field.",
    ),
    "a link out of it": (
        lambda folder: (folder / "x.safetensors").symlink_to("/etc/passwd"),
        "{folder}: expected files of its own, found links out of it: x.safetensors. Copy what they "
        "lead to into their place.",
    ),
    "another embedding": (
        stored(encoder__embed_tokens__weight=np.zeros((12, 8), np.float32)),
        "{folder}: the weights do not fit its config.json; 1 faults:\n  another embedding: "
        "encoder.embed_tokens.weight\nGive config.json and weights of one and the same model.",
    ),
    "another model's weights": (
        lambda folder: edit_json(folder / "config.json", vocab_size=13),
        "{folder}: the weights do not fit its config.json; 1 faults:\n  misshapen: shared.weight: "
        "expected (13, 8), found (12, 8)\nGive config.json and weights of one and the same model.",
    ),
}


def read(folder):
    return load(hub.find(str(folder)))


@pytest.mark.parametrize("name", ODD)
def test_odd_folders(tmp_path, name):
    folder = shutil.copytree(pickles.ZIP, tmp_path / "model")
    make, sentence, *found = ODD[name]
    make(folder)
    given = sentence.replace("{bin}", str(folder / BIN)).replace("{folder}", str(folder))
    assert fault(read, folder) == (given.replace("{}", *found) if found else given)


@pytest.mark.parametrize(
    "made",
    [
        pickles.legacy(LEGACY)[:2] + nested() + b".",
        b"\x80\x02" + pickles.number(pickles.MAGIC) + b".\x80\x02" + nested() + b".",
        pickles.legacy(LEGACY + b"\x80\x02](" + nested() + b"e."),
        pickles.with_pickle(pickles.named(nested())),
        pickles.with_pickle(pickles.named(nested() + b")R")),
        pickles.with_pickle(pickles.named(nested() + b"Q")),
        pickles.with_pickle(pickles.named(pickles.tensor(pickles.storage(view=nested())))),
        pickles.with_pickle(
            pickles.named(b"ctorch._utils\n_rebuild_tensor_v2\n" + nested() + b"R")
        ),
    ],
    ids=map(str, range(8)),
)
def test_a_tuple_of_2_to_the_200_parts_costs_nothing(tmp_path, made):
    folder = shutil.copytree(pickles.ZIP, tmp_path / "model")
    (folder / BIN).write_bytes(made)
    assert len(limit.call(60, fault, read, folder)) < 500
