"""A language model says texts in other words, for recommenders to learn from more than there is.

What a model of this size writes is often not what the text said. So a wording counts only where an
encoder finds it like the text: where the cosine of their vectors is high enough. Wordings are to
learn from and are shown to nobody, so that names and numbers are not checked as those of an
`Explainer` are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F

from llmrec_kernels.language.models import LanguageModel
from llmrec_kernels.ops import checks
from llmrec_kernels.recommenders import space
from llmrec_kernels.recommenders.features import Encodes

_ASK = "Say the same in other words, in one sentence. Keep all names and numbers."
_EXAMPLE = (
    "Heat (1995). Genres: Action, Crime. Directed by Michael Mann. Starring Al Pacino.",
    "Heat is a crime story with much action from 1995, made by Michael Mann, with Al Pacino.",
)


class Paraphraser:
    """Say texts in other words, and keep what an encoder finds alike.

    Parameters
    ----------
    model : LanguageModel
        What writes.
    encoder : object with `encode(texts) -> [n, d]`
        What compares, such as a `TextEncoder`.
    likeness : float
        The least cosine of a wording and its text, from -1 to 1.
    max_new_tokens : int
        Most tokens of a wording.

    Examples
    --------
    >>> from llmrec_kernels.encoders import TextEncoder, bundled_encoder_path
    >>> from llmrec_kernels.language import LanguageModel, bundled_language_model_path
    >>> model = LanguageModel(bundled_language_model_path())
    >>> paraphraser = Paraphraser(model, TextEncoder(bundled_encoder_path()), likeness=0.99)
    >>> paraphraser.views(["Alien (1979). Genres: Horror. Directed by Ridley Scott."])
    [[]]
    """

    def __init__(
        self,
        model: LanguageModel,
        encoder: Encodes,
        *,
        likeness: float = 0.8,
        max_new_tokens: int = 60,
    ) -> None:
        if not hasattr(model, "generate"):
            raise TypeError(f"model is {model!r}; expected a LanguageModel")
        if not hasattr(encoder, "encode"):
            raise TypeError(f"encoder is {encoder!r}; expected an object with encode(texts)")
        self.model, self.encoder = model, encoder
        self.likeness = checks.finite_number("likeness", likeness)
        if not -1 <= self.likeness <= 1:
            raise ValueError(f"likeness is {likeness}; expected -1 to 1")
        self.max_new_tokens = checks.positive_int("max_new_tokens", max_new_tokens)

    def views(self, texts: Sequence[str]) -> list[list[str]]:
        """Another wording of each text; none where the model's is too far from it.

        Parameters
        ----------
        texts : sequence of str
            What to say otherwise.
        """
        rows = [row for row, text in enumerate(texts) if text.strip()]
        asked = [texts[row] for row in rows]
        written = self.model.generate(
            asked, max_new_tokens=self.max_new_tokens, system=_ASK, examples=[_EXAMPLE]
        )
        views: list[list[str]] = [[] for _ in texts]
        if rows:
            alike = (
                F.normalize(space.encoded(self.encoder, asked), dim=1)
                * F.normalize(space.encoded(self.encoder, written), dim=1)
            ).sum(dim=1)
            for row, text, wording, cosine in zip(
                rows, asked, written, alike.tolist(), strict=True
            ):
                if cosine >= self.likeness and wording.strip() not in ("", text.strip()):
                    views[row].append(wording)
        return views
