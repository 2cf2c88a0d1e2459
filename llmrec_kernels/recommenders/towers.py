"""An item tower and a user tower over vectors of texts, and how they are trained.

    z_i = H x_i + c + e_i                       item tower: a head over the text, and what the
                                                interactions of the item say beyond it
    u = Σ_h w_h z_h / |Σ_h w_h z_h|             what the user took, by how much it was liked
    p = T u + Q y                               user tower, y what is said of the user in words
    score(u, i) = p · z_i / τ + popularity_i

With hidden units, H sees those over x too, and T has them beside it. An example is a user: half of
what the user took, drawn anew each time, is the history that the other half is foretold from.

*Contrastive*: each item that was taken against those that others of the batch took (in-batch
negatives; the user's own are left out). These come as often as they are popular, and so the product
learns log p(i | u) / p(i), how much more this user takes an item than others do; popularity is
added when items are ranked. *Rating*: r̂ = μ + b_u + b_i + p · z_i with squared errors, u the sum of
what is left of the ratings of the history, and not of length 1.

That e is small and H is small are priors, of which H's is the stronger: what holds for one item
alone goes into its e, and does not bend the head. That is what makes the head good for new items.

Sources: P.-S. Huang et al., Learning deep structured semantic models, CIKM 2013; X. Yi et al.,
Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys 2019;
M. Volkovs, G. Yu and T. Poutanen, DropoutNet, NIPS 2017 (contents and preferences of an item).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import xxhash
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, softplus

from llmrec_kernels.recommenders.tower_data import Taken
from llmrec_kernels.recommenders.tuning import Language
from llmrec_kernels.recommenders.wordings import Wordings
from llmrec_kernels.training import architecture

LOSSES = ("contrastive", "rating")
PACE = 0.05  # of the head's learning rate: an item moves by its text as fast as by itself
USER_PRIOR, TASTE_PRIOR = 5.0, 10.0  # ratings of a history that count as much as the mean
_PRIOR = {"contrastive": 4.0, "rating": 10.0}  # of e, in interactions; H's is λ times as large
_SHOWN = 0.5  # of what a user took: the history in training
_UNSEEN = 0.3  # of users with texts, whose history is hidden: for those who have none
_TEXTS = 8  # of a batch, which the language model reads while it is trained
_SCORES = 1 << 22  # at once, in validation: 16 MB
_BEGIN = 0.1  # size of the head's weights
_RARE = 0.1  # interactions of an item that nobody liked


class UserTower(nn.Module):
    """From what was taken to a profile."""

    def __init__(self, dim: int, hidden: int | None) -> None:
        super().__init__()
        self.turn = nn.Linear(dim, dim, bias=False)
        self.bend: nn.Sequential | None = None
        if hidden is not None:
            out = nn.Linear(hidden, dim, bias=False)
            self.bend = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), out)
        with torch.no_grad():
            self.turn.weight.copy_(torch.eye(dim))
            if hidden is not None:
                out.weight.zero_()

    @staticmethod
    def of_weights(weights: Mapping[str, Tensor]) -> UserTower:
        """The tower with these weights, in eval mode."""
        bent = weights.get("bend.0.weight")
        with torch.random.fork_rng([]):
            dim = len(weights["turn.weight"])
            tower = UserTower(dim, None if bent is None else len(bent))
        tower.load_state_dict(dict(weights))
        return tower.eval().requires_grad_(False)

    def forward(self, taken: Tensor) -> Tensor:
        """Profiles of sums over histories, [n, dim]."""
        turned: Tensor = self.turn(taken)
        return turned if self.bend is None else turned + self.bend(taken)


class Body(nn.Module):
    """What the head of the item tower sees: a vector, and the hidden units over it."""

    def __init__(self, width: int, hidden: int | None) -> None:
        super().__init__()
        self.layer = nn.Linear(width, hidden) if hidden else None

    @staticmethod
    def of_weights(weights: Mapping[str, Tensor]) -> Body:
        """The body with these weights, in eval mode; none: without hidden units."""
        body = Body(0, None)
        if weights:
            with torch.random.fork_rng([]):
                hidden, width = weights["layer.weight"].shape
                body = Body(width, hidden)
            body.load_state_dict(dict(weights))
        return body.eval().requires_grad_(False)

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, width] to [n, width + hidden]."""
        if self.layer is None:
            return vectors
        return torch.cat([vectors, gelu(self.layer(vectors))], dim=1)


class Shape(NamedTuple):
    """How large towers are."""

    width: int  # of an item's vector
    dim: int
    hidden: int | None
    n_items: int
    user_width: int  # of a user's vector; 0 where nothing is said of users


class Towers(nn.Module):
    """Both towers, and the language model under them where it is trained too."""

    def __init__(self, shape: Shape, language: Language | None) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.body = Body(width, hidden)
        self.head = nn.Linear(width + (hidden or 0), shape.dim + 1)  # the last is the item's bias
        self.beyond = nn.Parameter(torch.zeros(shape.n_items, shape.dim + 1))
        self.of_users = nn.Parameter(torch.zeros(shape.user_width, shape.dim))
        self.user = UserTower(shape.dim, hidden)
        self.language = language
        # Where a language model is trained: the items' vectors as it last read them.
        self.register_buffer("read", None)
        self.read: Tensor | None
        with torch.no_grad():
            nn.init.normal_(self.head.weight, std=_BEGIN / self.head.in_features**0.5)
            self.head.weight[-1] = 0.0
            self.head.bias.zero_()

    def items(self, vectors: Tensor, places: Tensor) -> Tensor:
        """The items at these places, [n, dim + 1], by their vectors, [n, width]."""
        told: Tensor = self.head(self.body(vectors)) + self.beyond[places]
        return told

    def groups(self, rate: float) -> list[dict[str, object]]:
        """The parameters with their learning rates."""
        slow = [*self.body.parameters(), *self.head.parameters(), self.of_users]
        groups: list[dict[str, object]] = [
            {"params": [self.beyond, *self.user.parameters()]},
            {"params": slow, "lr": PACE * rate},
        ]
        if self.language is not None:
            tuned = list(self.language.tuned().values())
            groups.append({"params": tuned, "lr": self.language.rate * rate})
        return groups


class Given(NamedTuple):
    """What towers are trained on."""

    vectors: Tensor  # [N, width] float32
    taken: Taken  # to learn from
    held_out: Taken  # to see when to stop
    users: Tensor  # [U, user_width] float32
    wordings: Wordings | None = None  # of the items' texts, other than their own


class TowerTask:
    """What is learned: towers that foretell one half of what users took from the other."""

    def __init__(
        self, towers: Towers, given: Given, *, loss: str, temperature: float, regularization: float
    ) -> None:
        self.network: nn.Module = towers
        self._towers, self._given = towers, given
        self._loss, self._temperature = loss, temperature
        taken = given.taken
        self._who = taken.owners.unique()
        self.size = len(self._who)
        whole = float(taken.counts.sum())
        self._usual = (1 - _SHOWN) * whole / self.size
        self._prior = _PRIOR[loss] / whole, regularization
        count = torch.zeros(len(given.vectors)).index_add(0, taken.items, taken.counts)
        self._often = count.clamp_min(_RARE).log()
        if towers.language is not None:
            towers.read = given.vectors.clone()

    def loss(self, examples: Tensor) -> Tensor:
        """Of what is hidden of some users, over as much as so many users have on the average."""
        users = self._who[examples]
        rows = self._given.taken.of(users)
        places, column = rows.items.unique(return_inverse=True)
        items = self._towers.items(self._vectors(places), places)
        shown = torch.rand(len(rows.items)) < _SHOWN
        if self._given.users.shape[1]:
            shown &= (torch.rand(len(users)) >= _UNSEEN)[rows.owners]
        of = self._ratings_loss if self._loss == "rating" else self._contrastive_loss
        loss = of(users, rows, items, column, shown) / (self._usual * len(users))
        prior, regularization = self._prior
        of_head = self._towers.head.weight.square().sum()
        return loss + prior * (self._towers.beyond.square().sum() + regularization * of_head)

    def validate(self) -> float | None:
        """The mean loss of what is held out, against all items."""
        held_out = self._given.held_out
        if not len(held_out.items):
            return None
        users, owner = held_out.owners.unique(return_inverse=True)
        rows = self._given.taken.of(users)
        n_items = len(self._given.vectors)
        read = self._towers.read
        items = self._towers.items(
            self._given.vectors if read is None else read, torch.arange(n_items)
        )
        shown = torch.ones(len(rows.items), dtype=torch.bool)
        if self._loss == "rating":
            bias, profiles = self._rated(users, rows, items[rows.items], shown)
            target = items[held_out.items]
            expected = bias[owner] + target[:, -1] + (profiles[owner] * target[:, :-1]).sum(dim=1)
            return float((held_out.values - expected).square().mean().sqrt())
        profiles = self._profiles(users, rows, items[rows.items], shown)
        return float(self._surprise(profiles, items, rows, owner, held_out.items).mean())

    def _surprise(
        self, profiles: Tensor, items: Tensor, rows: Taken, owner: Tensor, wanted: Tensor
    ) -> Tensor:
        """-log p of what is held out, against all items that its user did not take."""
        told = []
        at_once = max(1, _SCORES // len(items))
        for start in range(0, len(profiles), at_once):
            end = start + at_once
            scores = profiles[start:end] @ items[:, :-1].T / self._temperature + self._often
            own = (rows.owners >= start) & (rows.owners < end)
            scores[rows.owners[own] - start, rows.items[own]] = -torch.inf
            asked = (owner >= start) & (owner < end)
            of_user, item = owner[asked] - start, wanted[asked]
            told.append(scores.logsumexp(dim=1)[of_user] - scores[of_user, item])
        return torch.cat(told)

    def identity(self) -> dict[str, str | int | float]:
        """What a checkpoint must have alike."""
        digest = xxhash.xxh3_64()
        given = self._given
        learned = (given.vectors, given.users, *given.taken, *given.held_out)
        for one in (*learned, *(given.wordings or ())):
            digest.update(one.contiguous().numpy().data)
        return {
            "architecture": architecture(self.network),
            "loss": self._loss,
            "temperature": self._temperature,
            "regularization": self._prior[1],
            "items": len(given.vectors),
            "data": digest.hexdigest(),
        }

    def _vectors(self, places: Tensor) -> Tensor:
        """The vectors of items, [n, width]; a language model that is trained reads some anew."""
        language = self._towers.language
        read = self._towers.read
        if language is None or read is None:
            vectors, wordings = self._given.vectors, self._given.wordings
            return vectors[places] if wordings is None else wordings.drawn(vectors, places)
        some = torch.randperm(len(places))[:_TEXTS]
        fresh: Tensor = language(places[some])
        vectors = read[places].index_put((some,), fresh)
        read[places[some]] = fresh.detach()
        return vectors

    def _profiles(self, users: Tensor, rows: Taken, of_rows: Tensor, shown: Tensor) -> Tensor:
        """What users are by the part of their rows that is shown, [n, dim]."""
        weighted = of_rows[:, :-1] * (rows.values * shown)[:, None]
        taken = weighted.new_zeros(len(users), weighted.shape[1])
        profile: Tensor = self._towers.user(
            normalize(taken.index_add(0, rows.owners, weighted), dim=1)
        )
        return profile + self._said(users)

    def _rated(
        self, users: Tensor, rows: Taken, of_rows: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The bias of users, [n], and what they are, [n, dim], by the ratings that are shown."""
        rest = (rows.values - of_rows[:, -1]) * shown
        told = torch.cat([of_rows[:, :-1] * rest[:, None], rest[:, None], shown[:, None]], dim=1)
        sums = told.new_zeros(len(users), told.shape[1]).index_add(0, rows.owners, told)
        count = sums[:, -1]
        taken = sums[:, :-2] / (TASTE_PRIOR + count)[:, None]
        bias = sums[:, -2] / (USER_PRIOR + count)
        return bias, self._towers.user(taken) + self._said(users)

    def _said(self, users: Tensor) -> Tensor:
        return self._given.users[users] @ self._towers.of_users

    def _contrastive_loss(
        self, users: Tensor, rows: Taken, items: Tensor, column: Tensor, shown: Tensor
    ) -> Tensor:
        profiles = self._profiles(users, rows, items[column], shown)
        often = torch.zeros(len(items)).index_add(0, column, rows.counts)
        scores = profiles @ items[:, :-1].T / self._temperature + often.clamp_min(_RARE).log()
        own = torch.zeros_like(scores, dtype=torch.bool)
        own[rows.owners, column] = True
        others = scores.masked_fill(own, -1e9).logsumexp(dim=1)
        of_rows = softplus(others[rows.owners] - scores[rows.owners, column])
        return (of_rows * rows.counts * ~shown).sum()

    def _ratings_loss(
        self, users: Tensor, rows: Taken, items: Tensor, column: Tensor, shown: Tensor
    ) -> Tensor:
        of_rows = items[column]
        bias, profiles = self._rated(users, rows, of_rows, shown)
        taste = (profiles[rows.owners] * of_rows[:, :-1]).sum(dim=1)
        error = rows.values - bias[rows.owners] - of_rows[:, -1] - taste
        return (error.square() * ~shown).sum()
