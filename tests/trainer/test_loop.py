"""A training tells how it goes, can be stopped at any step, and never keeps what is no number."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from models.classifiers import ResNetConfig, TorchvisionConfig
from models.decoder import DecoderConfig
from models.encoders import EDSRConfig, RCANConfig
from models.purifier import PurifierConfig
from trainer.adversarial_training import MadryTraining
from trainer.adversary import Attack
from trainer.checkpoint import Checkpoint, State
from trainer.classifier import ClassifierTask, ClassifierTraining, Phase
from trainer.errors import CheckpointError, DivergedError, TrainerError
from trainer.guidance import Guidance
from trainer.images import LabeledImages
from trainer.loop import Loop, Metrics, Report, Stateful, Task
from trainer.pool import PoolTraining, PurifierTask, Victims
from trainer.query_noise import QueryNoise

MakeTask = Callable[[], Task]
PGD = Attack(kind="pgd", epsilon=(4, 8), steps=(1, 2), step_size=(0.3, 0.6))


class StoppedError(Exception):
    """Somebody stopped the training."""


class Watched:
    """Remembers what it is told, and stops the training after some step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.begun: list[tuple[str, int, int]] = []
        self.ended = 0
        self.steps: list[int] = []
        self.metrics: dict[int, dict[str, float]] = {}
        self.stop_after = stop_after

    @contextmanager
    def watch(self, name: str, steps: int, done: int) -> Iterator[Report]:
        self.begun.append((name, steps, done))
        try:
            yield self.told
        finally:
            self.ended += 1

    def told(self, step: int, metrics: Metrics) -> None:
        self.steps.append(step)
        if metrics:
            self.metrics[step] = dict(metrics)
        if step == self.stop_after:
            raise StoppedError


class Counting(Task):
    """One weight that counts the steps; a step may leave something that is no number in its loss or in itself."""

    def __init__(self, steps: int, bad_loss: int | None = None, bad_weight: int | None = None) -> None:
        self.name = "counting"
        self.steps = steps
        self.module = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.bad_loss = bad_loss
        self.bad_weight = bad_weight

    def step(self, number: int) -> dict[str, Tensor]:
        with torch.no_grad():
            self.module.weight += 1
            if number == self.bad_weight:
                self.module.weight.fill_(float("inf"))
        return {"loss": torch.tensor(float("nan") if number == self.bad_loss else float(number)), "one": torch.ones(())}

    def parts(self) -> dict[str, Stateful]:
        return {"module": self.module}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "task.ckpt", {"name": "counting"})


def test_a_watcher_is_told_every_step_and_now_and_then_the_mean_of_the_metrics(
    fabric: Fabric, checkpoint: Checkpoint
) -> None:
    watcher = Watched()

    Loop(fabric, [watcher]).train(Counting(23), checkpoint)

    assert watcher.begun == [("counting", 23, 0)]
    assert watcher.ended == 1
    assert watcher.steps == list(range(1, 24))
    assert watcher.metrics == {
        10: {"loss": 4.5, "one": 1.0},
        20: {"loss": 14.5, "one": 1.0},
        23: {"loss": 21.0, "one": 1.0},
    }


def test_a_training_that_goes_on_tells_how_much_was_done(fabric: Fabric, checkpoint: Checkpoint) -> None:
    with pytest.raises(StoppedError):
        Loop(fabric, [Watched(stop_after=15)], checkpoint_seconds=0).train(Counting(23), checkpoint)
    watcher, task = Watched(), Counting(23)

    Loop(fabric, [watcher]).train(task, checkpoint)

    assert watcher.begun == [("counting", 23, 14)]
    assert watcher.steps == list(range(15, 24))
    assert task.module.weight.item() == 23


def test_a_finished_training_is_not_trained_again(fabric: Fabric, checkpoint: Checkpoint) -> None:
    Loop(fabric).train(Counting(3), checkpoint)
    watcher, task = Watched(), Counting(3)

    Loop(fabric, [watcher]).train(task, checkpoint)

    assert watcher.begun == []
    assert task.module.weight.item() == 3


def test_a_checkpoint_is_written_at_the_first_step_after_so_many_seconds(
    fabric: Fabric, checkpoint: Checkpoint
) -> None:
    now = 0.0

    def clock() -> float:
        return now

    written = []

    class Clockwork(Watched):
        def told(self, step: int, _: Metrics) -> None:
            nonlocal now
            now = float(step)
            state = checkpoint.read()
            written.append(state.steps_done if state else 0)

    Loop(fabric, [Clockwork()], checkpoint_seconds=25, clock=clock).train(Counting(70), checkpoint)

    assert sorted(set(written)) == [0, 26, 52]
    assert checkpoint.finished(70)


def test_a_checkpoint_tells_who_trained_what(fabric: Fabric, checkpoint: Checkpoint) -> None:
    with pytest.raises(StoppedError):
        Loop(fabric, [Watched(stop_after=12)], checkpoint_seconds=0).train(Counting(23), checkpoint)
    Loop(fabric).train(Counting(23), checkpoint)

    history = checkpoint.finished(23).history

    assert [entry["steps"] for entry in history] == [[0, 11], [11, 23]]
    for entry in history:
        assert (entry["device"], entry["processes"], entry["precision"]) == ("cpu", 1, "32-true")
        assert entry["torch"] == torch.__version__
        assert entry.keys() >= {"begun", "seconds", "purigate", "commit"}


@pytest.mark.parametrize("bad", [0, 9, 10, 17, 22])
def test_a_loss_that_is_no_number_stops_the_training_before_it_is_kept(
    fabric: Fabric, checkpoint: Checkpoint, bad: int
) -> None:
    with pytest.raises(DivergedError, match=r"counting: loss is nan at step .*the last checkpoint is from before"):
        Loop(fabric, checkpoint_seconds=0).train(Counting(23, bad_loss=bad), checkpoint)

    state = checkpoint.read()
    assert (state.steps_done if state else 0) == bad


@pytest.mark.parametrize("bad", [0, 9, 10, 17, 22])
def test_a_weight_that_is_no_number_is_not_kept(fabric: Fabric, checkpoint: Checkpoint, bad: int) -> None:
    with pytest.raises(DivergedError, match=r"counting: module\.weight is not finite at step"):
        Loop(fabric, checkpoint_seconds=0).train(Counting(23, bad_weight=bad), checkpoint)

    state = checkpoint.read()
    assert (state.steps_done if state else 0) == bad


def test_a_training_goes_on_from_the_checkpoint_before_it_diverged(fabric: Fabric, checkpoint: Checkpoint) -> None:
    with pytest.raises(DivergedError):
        Loop(fabric, checkpoint_seconds=0).train(Counting(23, bad_loss=17), checkpoint)
    task = Counting(23)

    Loop(fabric).train(task, checkpoint)

    assert task.module.weight.item() == 23


@pytest.mark.parametrize("parts", [{}, {"other": {}}, {"module": {}, "other": {}}])
def test_a_checkpoint_of_other_parts_is_refused(
    fabric: Fabric, checkpoint: Checkpoint, parts: dict[str, dict[str, object]]
) -> None:
    checkpoint.write(State(3, parts))

    with pytest.raises(CheckpointError, match=r"task\.ckpt: not of counting: it holds .*, not module; remove it"):
        Loop(fabric).train(Counting(23), checkpoint)


def test_a_checkpoint_whose_parts_do_not_fit_is_refused_in_one_line(fabric: Fabric, checkpoint: Checkpoint) -> None:
    checkpoint.write(State(3, {"module": nn.Linear(2, 1, bias=False).state_dict()}))

    with pytest.raises(CheckpointError, match=r"its module is not of counting: .*size mismatch for weight") as told:
        Loop(fabric).train(Counting(23), checkpoint)
    assert "\n" not in str(told.value)


class Alone:
    """A Fabric of a second process whose first one answers what it is told to."""

    is_global_zero = False

    def __init__(self, *, failed: bool) -> None:
        self.failed = failed

    def broadcast(self, answer: object) -> tuple[bool, bool]:
        assert answer == (False, False)
        return True, self.failed


def test_another_process_does_as_the_first_one_says_and_nothing_itself() -> None:
    worked: list[bool] = []

    assert Loop(cast("Fabric", Alone(failed=False)))._first(lambda: worked.append(True))
    assert not worked


def test_another_process_ends_where_the_first_one_failed() -> None:
    with pytest.raises(TrainerError, match="the first process could not go on"):
        Loop(cast("Fabric", Alone(failed=True)))._first(lambda: None)


def test_a_full_disk_stops_a_training_that_goes_on_once_there_is_room(fabric: Fabric, checkpoint: Checkpoint) -> None:
    class Filling(Watched):
        def told(self, step: int, metrics: Metrics) -> None:
            super().told(step, metrics)
            if step == 20:
                checkpoint.path.with_name("task.ckpt.partial").symlink_to("/dev/full")

    watcher = Filling()
    with pytest.raises(CheckpointError, match="No space left on device"):
        Loop(fabric, [watcher], checkpoint_seconds=0).train(Counting(30), checkpoint)

    assert watcher.ended == 1
    task = Counting(30)
    Loop(fabric, [Watched()]).train(task, checkpoint)
    assert task.module.weight.item() == 30


@pytest.fixture(scope="module")
def small(two_colors: LabeledImages) -> LabeledImages:
    return two_colors.spread(16)


@pytest.fixture(scope="module")
def classifiers(fabric: Fabric, small: LabeledImages) -> MakeTask:
    """Makes the task of a classifier that trains adversarially: all kinds of randomness and batch norms in it."""
    training = ClassifierTraining(
        phases=(Phase(epochs=1, resolution=8), Phase(epochs=1, resolution=12)),
        batch_size=4,
        padding=1,
        adversarial=MadryTraining(method="madry", attack=PGD),
    )

    def make() -> Task:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(2)
        return ClassifierTask("classifier", network, training, small, fabric, seed=0)

    return make


@pytest.fixture(scope="module")
def droppers(fabric: Fabric, small: LabeledImages) -> MakeTask:
    """Makes the task of a classifier whose dropout draws from the global generator."""
    training = ClassifierTraining(
        phases=(Phase(epochs=2, resolution=32),), batch_size=4, padding=1, peak_learning_rate=0.01
    )

    def make() -> Task:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = TorchvisionConfig(name="squeezenet1_1").build(2)
        torch.seed()
        return ClassifierTask("classifier", network, training, small, fabric, seed=0)

    return make


@pytest.fixture(scope="module")
def purifiers(fabric: Fabric, small: LabeledImages) -> MakeTask:
    """Makes the task of two purifiers that learn from noise too and are guided by a classifier."""
    decoder = DecoderConfig(hidden=(4,))
    training = PoolTraining(
        attacks={"pgd": PGD},
        purifiers={
            "edsr": PurifierConfig(encoder=EDSRConfig(features=4, blocks=1), decoder=decoder),
            "rcan": PurifierConfig(encoder=RCANConfig(features=4, groups=1, blocks=1, reduction=2), decoder=decoder),
        },
        steps=8,
        adversarial=4,
        clean=2,
        clean_after=0.5,
        crop=8,
        noise=QueryNoise(images=2, epsilon=(4, 12)),
        guidance=Guidance(weight=0.1, images=2),
    )
    victim = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2)).requires_grad_(False)
    return lambda: PurifierTask(training, "pgd", Victims(victim, victim), small, fabric, seed=0)


@pytest.fixture(scope="module", params=["classifiers", "droppers", "purifiers"])
def make_task(request: pytest.FixtureRequest) -> MakeTask:
    made: MakeTask = request.getfixturevalue(request.param)
    return made


@pytest.fixture(scope="module")
def plain(make_task: MakeTask, fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Of a training that nobody interrupted."""
    checkpoint = Checkpoint(tmp_path_factory.mktemp("plain") / "task.ckpt", {})
    Loop(fabric).train(make_task(), checkpoint)
    return checkpoint


def tensors(node: object) -> list[Tensor]:
    if isinstance(node, Tensor):
        return [node]
    if isinstance(node, dict):
        return [tensor for value in node.values() for tensor in tensors(value)]
    return []


def assert_same_end(one: Checkpoint, other: Checkpoint, steps: int) -> None:
    """Two trainings ended with the same weights, optimizer and schedule, to the last bit."""
    first, second = one.finished(steps).parts, other.finished(steps).parts
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    assert len(pairs) > 20
    assert all(torch.equal(*pair) for pair in pairs)
    assert first["schedule"] == second["schedule"]


@pytest.mark.parametrize("stop_after", range(1, 9))
def test_a_training_that_was_interrupted_at_any_step_ends_where_a_plain_one_does(
    make_task: MakeTask,
    plain: Checkpoint,
    fabric: Fabric,
    tmp_path: Path,
    stop_after: int,
) -> None:
    interrupted, watcher = Checkpoint(tmp_path / "task.ckpt", {}), Watched(stop_after)
    second_a_step = Loop(fabric, [watcher], checkpoint_seconds=3, clock=lambda: float(len(watcher.steps)))
    with pytest.raises(StoppedError):
        second_a_step.train(make_task(), interrupted)
    kept = interrupted.read()
    assert (kept.steps_done if kept else 0) == (stop_after - 1) // 4 * 4

    Loop(fabric, checkpoint_seconds=0).train(make_task(), interrupted)

    assert_same_end(plain, interrupted, 8)


def test_a_training_that_is_interrupted_after_every_step_ends_where_a_plain_one_does(
    make_task: MakeTask, plain: Checkpoint, fabric: Fabric, tmp_path: Path
) -> None:
    interrupted = Checkpoint(tmp_path / "task.ckpt", {})

    for stop_after in range(2, 9):
        with pytest.raises(StoppedError):
            Loop(fabric, [Watched(stop_after)], checkpoint_seconds=0).train(make_task(), interrupted)
    Loop(fabric).train(make_task(), interrupted)

    assert [entry["steps"] for entry in interrupted.finished(8).history] == [[done, done + 1] for done in range(8)]
    assert_same_end(plain, interrupted, 8)


def test_a_learning_rate_that_is_far_too_large_stops_the_training_with_a_usable_checkpoint(
    fabric: Fabric, small: LabeledImages, tmp_path: Path
) -> None:
    training = ClassifierTraining(
        phases=(Phase(epochs=3, resolution=12),), batch_size=4, padding=1, peak_learning_rate=1e30
    )
    network = ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(2)
    checkpoint = Checkpoint(tmp_path / "classifier.ckpt", {})

    with pytest.raises(DivergedError, match=r"classifier: .*lower peak_learning_rate"):
        Loop(fabric, checkpoint_seconds=0).train(
            ClassifierTask("classifier", network, training, small, fabric, 0), checkpoint
        )

    state = checkpoint.read()
    assert state is None or all(bool(one.isfinite().all()) for one in tensors(state.parts))
