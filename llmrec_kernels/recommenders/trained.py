"""What recommenders share that are trained in epochs, over the vectors of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llmrec_kernels.encoders import TextEncoder
from llmrec_kernels.recommenders.answering import Learned
from llmrec_kernels.recommenders.records import Absent
from llmrec_kernels.recommenders.vectors import VectorRecommender
from llmrec_kernels.training import Training, TrainingReport

if TYPE_CHECKING:
    from typing_extensions import Self

    from llmrec_kernels.recommenders.saving import Helpers

_NOT_SAVED = ("encoder", "embeddings", "augment")  # the encoder is, with what was learned


class TrainedRecommender(VectorRecommender[Learned]):
    """A recommender with a training; what it learned has the reader of the items' texts.

    Attributes
    ----------
    training_report : TrainingReport or None
        What came of the training; None before `fit`, where there was nothing to train on, and after
        `load`.
    """

    training: Training
    training_report: TrainingReport | None = None

    def _options(self) -> dict[str, Any]:
        here = self.training._replace(checkpoint=None, progress=None)  # what is of this machine
        return self._arguments_but(*_NOT_SAVED) | {"training": here}

    @classmethod
    def _made(cls, options: dict[str, Any], learned: Any, helpers: Helpers) -> Self:
        if learned.reader is None:
            return cls(**options)
        encoder = learned.reader.encoder or Absent("the embeddings are not saved")
        tune = options.get("tune", "frozen")
        if tune != "frozen" and not isinstance(encoder, TextEncoder | Absent):
            from llmrec_kernels.recommenders.saving import ModelFormatError

            raise ModelFormatError(
                f"encoder is a {type(encoder).__name__}, but the model was saved with "
                f"tune={tune!r}; expected the TextEncoder whose language model was trained"
            )
        made: Any = cls
        return cast("Self", made(encoder=encoder, **options))
