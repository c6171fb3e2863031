"""What goes over the wire."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Output = Literal["scores", "top_k", "rounded", "label"]
"""What of the scores a client is told; `service.policy` says what each means."""


class WireModel(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(frozen=True)


class BundleName(WireModel):
    """Which bundle answered."""

    name: str = Field(examples=["cifar10"])
    version: str


class Score(WireModel):
    """One class and how probable the classifier finds it."""

    label: str = Field(examples=["cat"])
    index: int = Field(ge=0, examples=[3])
    score: float = Field(ge=0, le=1, examples=[0.93])


class Classification(WireModel):
    """The answer about one image: its best class, and the best scores, best first."""

    label: str = Field(examples=["cat"])
    index: int = Field(ge=0, examples=[3])
    scores: list[Score] | None = Field(description="Best first; absent under a policy that tells the label alone.")


class Answer(WireModel):
    """What every answer about images begins with."""

    request_id: str
    bundle: BundleName


class ClassifyAnswer(Classification, Answer):
    """The answer of `/classify`."""


class BatchAnswer(Answer):
    """The answer of `/classify/batch`: one result an image, in the order sent."""

    results: list[Classification]


class ProblemAnswer(WireModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(examples=["urn:purigate:problem:undecodable-image"])
    title: str
    status: int
    detail: str
    request_id: str


class Liveness(WireModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(WireModel):
    """Whether queries are served now."""

    status: Literal["loading", "ready", "draining", "fault"]


class InputSize(WireModel):
    """What the classifier sees of an image, in pixels."""

    height: int
    width: int


class Information(WireModel):
    """What is served."""

    version: str = Field(description="Of Purigate.")
    bundle: BundleName
    labels: list[str]
    input: InputSize
    defense: str
    purifiers: list[str]
    device: str
    precision: str
    image_types: list[str]
    max_body_bytes: int
    max_pixels: int
    max_images_per_request: int
