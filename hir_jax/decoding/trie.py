"""The outputs that may be drawn and no others, as token tries on the device.

Each root has a set of outputs, EOS included, so that an output ends where its set lets it end. With
EOS = 1 and the sets {5, 5 6, 7} and {7}, whose roots are 0 and 1:

    0 -5-> 2 -1-> 5           1 -7-> 4 -1-> 8
             -6-> 6 -1-> 9
      -7-> 3 -1-> 7

Edges are sorted by the node that they leave and by token, and nodes are numbered by the edge that
leads to them. So two flat arrays are enough, however large the vocabulary is:

    edge                0  1  2  3  4  5  6  7
    its token           5  7  7  1  6  1  1  1
    leads to (+ roots)  2  3  4  5  6  7  8  9
    node                0  1  2  3  4  5  6  7  8  9
    its first edge      0  2  3  5  6  7  7  8  8  8

Letters in names: N rows, V vocabulary, K edges of the node that has most (2 or more), M
nodes, E edges.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from hir_jax.model.codec import Tokens


class Edges(NamedTuple):
    """What may follow at each row's node, its tokens from the lowest on."""

    token_NxK: jax.Array
    child_NxK: jax.Array
    real_NxK: jax.Array  # those of the node; the others are any

    def of(self, scores_NxV: jax.Array) -> jax.Array:
        """The scores of the edges' tokens; -inf where there is no edge."""
        return self.masked(jnp.take_along_axis(scores_NxV, self.token_NxK, axis=1))

    def masked(self, scores_NxK: jax.Array) -> jax.Array:
        """The same with -inf where there is no edge."""
        return jnp.where(self.real_NxK, scores_NxK, -jnp.inf)

    def at(self, place_N: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The token of one edge of each row, and the node that it leads to; N each."""
        place_Nx1 = place_N[:, None]
        token_Nx1, child_Nx1 = (
            jnp.take_along_axis(x, place_Nx1, axis=1) for x in (self.token_NxK, self.child_NxK)
        )
        return token_Nx1[:, 0], child_Nx1[:, 0]


@flax.struct.dataclass
class Trie:
    """Several tries in one table."""

    first_M: jax.Array  # each node's first edge, and the number of edges behind the last
    token_E: jax.Array
    roots: int = flax.struct.field(pytree_node=False)  # nodes 0 ... roots - 1
    degree: int = flax.struct.field(pytree_node=False)  # K

    @classmethod
    def make(cls, sets: Sequence[Collection[Tokens]]) -> Self:
        """Of a set of outputs a root, as NumPy arrays; equal outputs are one.

        Raises:
            ValueError: a set is empty, or an output is.
        """
        if not sets or not all(sets) or not all(map(len, (o for own in sets for o in own))):
            raise ValueError("expected outputs of a token or more in every set")
        outputs = [(root, output) for root, outputs in enumerate(sets) for output in outputs]
        node = np.array([root for root, _ in outputs])  # of each output, as far as it is put in
        leaves, tokens = [], []
        for depth in range(max(len(output) for _, output in outputs)):
            on = [i for i, (_, output) in enumerate(outputs) if len(output) > depth]
            steps = np.stack([node[on], [outputs[i][1][depth] for i in on]], axis=1)
            edges, of_each = np.unique(steps, axis=0, return_inverse=True)
            node[on] = len(sets) + sum(map(len, tokens)) + of_each.ravel()
            leaves.append(edges[:, 0])
            tokens.append(edges[:, 1])
        count = np.bincount(np.concatenate(leaves), minlength=len(sets) + sum(map(len, tokens)))
        first = np.concatenate([[0], np.cumsum(count)])
        return cls(
            first.astype(np.int32),
            np.concatenate(tokens).astype(np.int32),
            roots=len(sets),
            degree=max(2, int(count.max())),  # beam search looks at two continuations of a beam
        )

    def edges(self, node_N: jax.Array) -> Edges:
        """What may follow at each row's node."""
        edge_NxK = self.first_M[node_N][:, None] + jnp.arange(self.degree)
        real_NxK = edge_NxK < self.first_M[node_N + 1][:, None]
        return Edges(self.token_E.at[edge_NxK].get(mode="clip"), self.roots + edge_NxK, real_NxK)
