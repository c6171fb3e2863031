"""Two processes that hold a part of a batch each normalize it as one process does that holds all of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from trainer.batch_norm import SharedBatchNorm2d, share_batch_norms

PROCESSES = 2
STEPS = 2


def batches() -> list[Tensor]:
    """Whole batches, whose halves have means and variances that differ widely."""
    random = torch.Generator().manual_seed(0)
    images = [torch.randn(6, 3, 4, 5, generator=random) for _ in range(STEPS)]
    return [torch.cat([one[:3], 5 * one[3:] + 7]) for one in images]


def network(momentum: float | None = 0.1) -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, momentum=momentum)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(norm, nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, affine=False))


def train(learner: nn.Module, images: list[Tensor], total: int) -> dict[str, Tensor]:
    """Two passes in training and the first batch again in evaluation: outputs, gradients and statistics."""
    inputs = [one.clone().requires_grad_() for one in images]
    found = {}
    for number, one in enumerate(inputs):
        outputs = learner(one)
        ((outputs * torch.linspace(-1, 1, outputs[0].numel()).view_as(outputs[0])) ** 2).sum().div(total).backward()
        found[f"output {number}"] = outputs.detach()
        assert one.grad is not None
        found[f"gradient of the images {number}"] = one.grad
    gradients = {f"gradient of {name}": one.grad for name, one in learner.named_parameters() if one.grad is not None}
    evaluated = {"evaluated": learner.eval()(images[0]).detach()}
    return {**found, **gradients, **evaluated, **learner.state_dict()}


def one_of_two(rank: int, folder: str) -> None:
    """What each process does: its half, in training, with gradients added up over the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES)
    for name, momentum in (("running", 0.1), ("cumulative", None)):
        learner = network(momentum)
        share_batch_norms(learner)
        halves = [one.chunk(PROCESSES)[rank] for one in batches()]
        found = train(learner, halves, total=6)
        for key in found:
            if key.startswith("gradient of") and "images" not in key:
                dist.all_reduce(found[key])
        torch.save(found, f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they found."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(one_of_two, args=(str(folder),), nprocs=PROCESSES)  # type: ignore[no-untyped-call]
    return folder


@pytest.mark.parametrize(("name", "momentum"), [("running", 0.1), ("cumulative", None)])
def test_two_processes_find_what_one_finds(shared: Path, name: str, momentum: float | None) -> None:
    expected = train(network(momentum), batches(), total=6)

    parts = [torch.load(shared / f"{name}-{rank}.pt", weights_only=True) for rank in range(PROCESSES)]

    for key, whole in expected.items():
        halves = key.startswith(("output", "evaluated", "gradient of the images"))
        for rank, part in enumerate(parts):
            own = whole.chunk(PROCESSES)[rank] if halves else whole
            assert torch.allclose(part[key], own, rtol=1e-4, atol=1e-4), key


def test_sharing_keeps_names_parameters_and_statistics() -> None:
    plain, shared_one = network(), network()

    share_batch_norms(shared_one)

    assert [type(module) for module in shared_one] == [SharedBatchNorm2d, nn.Conv2d, SharedBatchNorm2d]
    assert shared_one.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(shared_one.state_dict()[name], one) for name, one in plain.state_dict().items())


def test_in_evaluation_a_shared_batch_norm_needs_no_processes() -> None:
    plain, shared_one = network().eval(), network().eval()
    share_batch_norms(shared_one)

    assert torch.equal(shared_one(batches()[0]), plain(batches()[0]))
