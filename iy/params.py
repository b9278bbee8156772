"""Typed settings: `params.yaml` names a profile, `profiles/<profile>.yaml` holds every value. Unknown keys are errors.

There are no defaults in code: a profile states every key. What was resolved is written and hashed beside each output.
"""

import difflib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from iy.errors import UserError, one_line
from iy.storage import sha256, write_json

StageNumber = Literal["1", "2", "3", "4"]
Share = Field(ge=0, le=1)
Names = Annotated[
    list[str], Field(min_length=1), BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())


class Pipeline(Section):
    """A whole diffusers pipeline, opened by its named class: nothing is guessed from a path."""

    cls: str = Field(alias="class")
    path: str


class Component(Pipeline):
    """A model part, opened by its named class."""

    subfolder: str | None


class TextEncoder(Component):
    """int8: keep its linear layers in 8 bits, half the memory of bfloat16."""

    tokenizer: str
    int8: bool


class TextBranch(TextEncoder):
    """A text encoder whose states the model reads, and what may stand beside it.

    second: as in SDXL, whose own text is two encoders' penultimate states side by side and the second one's pooled
    embedding, all of them zero for an empty prompt.
    """

    max_length: PositiveInt
    own: bool
    second: TextEncoder | None


SINGLE_PARTS = ("unet", "vae", "scheduler", "vision")  # of a base; its text branches are several


class Base(Section):
    image_size: PositiveInt
    dtype: Literal["float32", "bfloat16", "float16"]
    unet: Component
    vae: Component
    scheduler: Component
    vision: Component
    text: dict[str, TextBranch]

    def parts(self) -> dict[str, Component]:
        """Every part that is opened, by its key in the settings: `unet`, `text.clip`, `text.clip.second` …"""
        found: dict[str, Component] = {name: getattr(self, name) for name in SINGLE_PARTS}
        for name, branch in self.text.items():
            found[f"text.{name}"] = branch
            if branch.second:
                found[f"text.{name}.second"] = branch.second
        return found

    def moved(self, place: Callable[[str], str]) -> "Base":
        """The same parts, each at `place` of its path."""

        def one(part: Component) -> Component:
            return part.model_copy(update={"path": place(part.path)})

        text = {
            name: one(branch).model_copy(update={"second": branch.second and one(branch.second)})
            for name, branch in self.text.items()
        }
        return self.model_copy(update={name: one(getattr(self, name)) for name in SINGLE_PARTS} | {"text": text})


class Model(Section):
    attention: Literal["parallel", "concatenated"]
    alpha: dict[str, float]
    lora_rank: PositiveInt
    lora_targets: list[Literal["self", "text"]]
    crop_margin: PositiveFloat
    mask_face: bool


class Photos(Section):
    source: Literal["studio", "folder", "s3", "webdataset", "table"]
    path: str | None
    snapshot: str | None
    people: PositiveInt
    per_person: PositiveInt
    size: PositiveInt
    first_person: int
    licence: str
    consent: str
    maximum_pixels: PositiveInt
    maximum_side: PositiveInt


class Workers(Section):
    """Who renders, runs the face models over photos and makes the shards of SynPairs; the results are the same."""

    map: Literal["serial", "processes", "ray"]
    count: PositiveInt
    address: str | None


class Jobs(Section):
    """How `iy generate --table` shares out its pictures. Both decide the last bits of a picture, as rounding does.

    batch: pictures drawn at once; threads: cores that each worker computes with (where there is a GPU, it does).
    """

    batch: PositiveInt
    threads: PositiveInt


WITHOUT_EFFECT = ("workers", "jobs")  # sections that change no stage's result


class Faces(Section):
    analyser: Literal["open", "insightface"]
    pack: str | None
    minimum_score: float = Share
    embed_size: int | None


class Classifier(Section):
    """An image classifier of transformers that refuses photos: those whose labels' probabilities sum to over `maximum`.

    input: what it is shown of a photo.
    """

    model: str
    label: Names
    maximum: float = Share
    input: Literal["photo", "face"]


class Curate(Section):
    minimum_size: PositiveInt
    minimum_face: PositiveInt
    minimum_face_share: float = Share
    minimum_sharpness: float
    maximum_clipped: float = Share
    maximum_yaw: PositiveFloat
    maximum_pitch: PositiveFloat
    duplicate_bits: int
    duplicate_similarity: float
    grouping: Literal["auto", "label", "embedding"]
    group_threshold: float | None
    minimum_per_person: PositiveInt
    wrong_names: Literal["reject", "keep"]
    validation_people: PositiveInt
    test_people: Annotated[int, Field(ge=2)]
    classifiers: dict[str, Classifier]
    captioner: Literal["auto", "sidecar", "transformers"]
    caption_model: str | None
    caption_batch: PositiveInt


class Adapter(Section):
    """An IP-Adapter as it is published.

    weights, image_encoder: a file and a folder below `path`; image_encoder: null where the pipeline has its own;
    pipeline: what the adapter goes on, null for the generator.
    """

    path: str
    weights: str
    image_encoder: str | None
    scale: float
    pipeline: Pipeline | None


class SynPairs(Section):
    pairs_per_person: PositiveInt
    rewriter: Literal["grammar", "transformers", "openai"]
    rewriter_model: str | None
    rewriter_endpoint: str | None
    rewriter_attempts: PositiveInt
    rewriter_budget: PositiveInt | None
    generator: Pipeline | None
    start: Literal["text", "reference", "photo"]
    refiner: Literal["bundle", "ip_adapter", "inswapper", "none"]
    refiner_model: Adapter | str | None
    steps: PositiveInt
    guidance: float
    identity_guidance: float
    passes: int = Field(ge=0)
    strength: float = Share
    false_match_rate: float = Share
    upper_quantile: float = Share
    fallback_best: float = Share
    batch: PositiveInt

    @property
    def rounds(self) -> int:
        """Passes that are made: none where nothing refines."""
        return 0 if self.refiner == "none" else self.passes


class Select(Section):
    real_share: float = Share
    pair_share: float = Share
    decisions: str | None
    review: Literal["optional", "required"]

    def decided(self) -> str:
        """The file of people's decisions, which `review: required` needs."""
        if self.decisions is None:
            raise UserError(
                "select.review: required needs select.decisions: name the file, such as decisions/studio.csv"
            )
        return self.decisions


class Finetuning(Section):
    data: Literal["real", "pairs"]
    set: Literal["all", "selected"]
    steps: PositiveInt
    learning_rate: PositiveFloat
    warmup: int = Field(ge=0)


class Training(Section):
    """What all stages share."""

    batch: PositiveInt
    accumulate: PositiveInt
    precision: Literal["no", "bf16", "fp16"]
    weight_decay: float
    clip_norm: PositiveFloat
    ema_decay: float = Share
    min_snr_gamma: PositiveFloat | None
    drop_text: float = Share
    drop_image: float = Share
    drop_both: float = Share
    reference_other: float = Share
    face_weight: PositiveFloat
    identity_model: str | None
    identity_weight: NonNegativeFloat
    validate_every: PositiveInt
    validation_images: PositiveInt
    validation_batches: PositiveInt


class Buckets(Section):
    """Shapes that photos are cut to: multiples of `step` pixels, at most `ratio` times as long as short, of about
    base.image_size² pixels times the square of a resolution."""

    step: PositiveInt
    ratio: float = Field(ge=1)
    resolutions: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]


class Finetune(Section):
    """encoding: how many pictures and captions are encoded at once; see `iy.finetune.encode`. prefetch: batches that
    are made while others are trained on. store: s3://bucket/folder, where machines share what is encoded."""

    init: Literal["pretrained", "none"]
    pretrained: str | None
    checkpoint_every: PositiveInt
    prefetch: int = Field(ge=0)
    encoding: Literal["batches", "alone"]
    store: str | None
    buckets: Buckets | None
    training: Training
    stages: dict[StageNumber, Finetuning]


class Draw(Section):
    """How a picture is drawn wherever one is: the benchmark, previews, `iy generate`, the served model."""

    steps: PositiveInt
    guidance: float
    identity_guidance: float


class Provenance(Section):
    """What drawn pictures say of themselves when they leave. certificate, key: PEM files; null for this user's own."""

    mark: bool
    certificate: str | None
    key: str | None
    prompt: bool
    watermark: Literal["auto", "off"]


def calibrated(rate: float) -> float:
    """One of the false-match rates that curate calibrates."""
    if rate not in (0.001, 0.01, 0.05, 0.1):
        raise ValueError("curate calibrates the rates 0.001, 0.01, 0.05 and 0.1")
    return rate


class Policy(Section):
    """Whose face may be drawn. people: the folder of the lists. false_match_rate: of curate's calibration."""

    faces: Literal["any", "listed"]
    people: str
    false_match_rate: Annotated[float, AfterValidator(calibrated)]


class Evaluate(Section):
    people: PositiveInt
    prompts: PositiveInt
    seeds: PositiveInt
    batch: PositiveInt
    second_recogniser: Literal["fr_feature", "dlib"]
    probes: str | None
    clip: str | None
    together: int = Field(ge=0)
    bootstrap: PositiveInt


class Register(Section):
    name: str
    metric: Literal["identity", "identity_other", "top1", "identity_filter", "top1_filter"]  # names of `iy.metrics`
    alignment: Literal["prompt_alignment", "clip_score"]
    minimum_prompt_alignment: float


class Params(Section):
    profile: str
    usage: Literal["research", "commercial"]
    seed: int
    device: Literal["auto", "cpu", "cuda"]
    workers: Workers
    base: Base
    model: Model
    photos: Photos
    faces: Faces
    curate: Curate
    synpairs: SynPairs
    select: Select
    finetune: Finetune
    draw: Draw
    jobs: Jobs
    provenance: Provenance
    policy: Policy
    evaluate: Evaluate
    register_: Register = Field(alias="register")

    def resolved(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    def digest(self) -> str:
        """sha256 of the resolved settings but those that change no stage's result; order of keys left out."""
        return sha256(json.dumps(self.decisive(), sort_keys=True).encode())

    def decisive(self) -> dict[str, Any]:
        return {name: value for name, value in self.resolved().items() if name not in WITHOUT_EFFECT}

    def write(self, folder: Path) -> None:
        """`settings.json` in `folder`: the resolved settings but those without effect, and their hash."""
        write_json(folder / "settings.json", {"sha256": self.digest(), "settings": self.decisive()})

    @property
    def photos_dir(self) -> Path:
        return Path("data", self.profile, "photos")

    def data_dir(self, stage: str) -> Path:
        """`data/<profile>/<stage>`: photos, curate, synpairs, select."""
        return Path("data", self.profile, stage)

    def bundle_dir(self, stage: int) -> Path:
        """`models/<profile>/finetune<stage>`: the bundle that a finetuning stage writes."""
        return Path("models", self.profile, f"finetune{stage}")

    def report_dir(self, stage: str) -> Path:
        return Path("reports", self.profile, stage)


def read_yaml(path: Path) -> dict:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run from the project folder, or name one of {profiles()}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({one_line(error, 1000)}): mend it and run again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold `key: value` lines, found {type(value).__name__}: see profiles/studio.yaml")
    return value


def profiles() -> list[str]:
    return sorted(path.stem for path in Path("profiles").glob("*.yaml"))


def load(profile: str | None = None) -> Params:
    """The settings of `profile` (or of the one that params.yaml names) from the current folder."""
    chosen = read_yaml(Path("params.yaml")) if profile is None else {"profile": profile}
    if extra := set(chosen) - {"profile"}:
        raise UserError(
            f"params.yaml: unknown key {sorted(extra)[0]!r}: it holds `profile` only; settings live in profiles/"
        )
    name = chosen.get("profile")
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(
            f"params.yaml: profile {name!r} is not the name of a file under profiles/: choose one of {profiles()}"
        )
    path = Path("profiles", f"{name}.yaml")
    return parse({"profile": name, **read_yaml(path)}, str(path))


def parse(value: dict, source: str) -> Params:
    """Validate a settings mapping; the first mistake becomes one sentence with the key and what would be right."""
    try:
        return Params.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(dict(error.errors()[0]))}") from None


UNION = ("Adapter", "str")  # what pydantic adds to the place of a mistake in a setting of several types
OPTIONAL = {
    "generator": Pipeline,
    "pipeline": Pipeline,
    "refiner_model": Adapter,
    "buckets": Buckets,
}  # settings that may be null instead


def explain(error: dict) -> str:
    error = error | {"loc": tuple(part for part in error["loc"] if part not in UNION)}
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        names = known_names(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), names, 1, 0)
        return f"unknown key {place!r}" + (f": did you mean {near[0]!r}?" if near else ": remove it")
    if error["type"] == "missing":
        return f"key {place!r} is missing: add it (profiles/studio.yaml shows one)"
    return f"{place} = {error['input']!r}: {error['msg']}"


def known_names(place: tuple) -> list[str]:
    """The keys that may stand at `place` in the settings."""
    model: Any = Params
    for part in place:
        if not (isinstance(model, type) and issubclass(model, Section)):
            break
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        model = fields.get(part)
    if not (isinstance(model, type) and issubclass(model, Section)):
        above, key = ("", "", *map(str, place))[-2:]
        model = OPTIONAL.get(key) or {"text": TextBranch, "stages": Finetuning, "classifiers": Classifier}.get(
            above, Section
        )
    return [field.alias or name for name, field in model.model_fields.items()]
