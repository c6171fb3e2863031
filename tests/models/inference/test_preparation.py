"""Networks as they answer queries give what the plain ones give."""

import io
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from models.bundle import Bundle, read_bundle
from models.classifiers import ResNetConfig
from models.classifiers.exported import read_program
from models.classifiers.normalization import Normalized
from models.defenses import DEFENSES, build_defense
from models.device import Placement, Precision, PrecisionMissingError
from models.inference.int8_convolution import int8_problem
from models.inference.preparation import classifier_for_inference, defense_for_inference
from models.inference.winograd import WinogradConvolution
from models.randomness import SeededBytes
from service.settings import embedded_bundle

CPU = torch.device("cpu")
LEVEL = 1 / 255
TOLERANCE: dict[Precision, float] = {"float32": 1e-5, "bfloat16": 2 * LEVEL}
"""Of a pixel, where purifiers have random weights, whose corrections are large."""
LOGITS: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.03}
"""Of a logit, as a share of the largest."""
precisions = pytest.mark.parametrize("precision", ["float32", "bfloat16"])


@pytest.fixture
def bundle(bundle_folder: Path) -> Bundle:
    return read_bundle(bundle_folder)


def some_images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@precisions
@pytest.mark.parametrize("name", DEFENSES)
@torch.inference_mode()
def test_a_defense_transforms_images_as_the_plain_one_under_the_same_draws(
    bundle: Bundle, name: str, precision: Precision
) -> None:
    plain = build_defense(name, bundle)
    images = some_images()
    draws = plain.draw(SeededBytes(len(images), torch.Generator().manual_seed(1)))
    expected = plain(images, draws)

    defense = defense_for_inference(build_defense(name, bundle), Placement(CPU, precision))
    found = defense(images, draws)

    assert found.dtype == torch.float32
    assert {str(weights.dtype) for weights in defense.parameters()} <= {f"torch.{precision}"}
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[precision])
    assert defense.purifiers == plain.purifiers


@torch.inference_mode()
def test_the_embedded_purifiers_lose_less_than_a_level_to_bfloat16() -> None:
    plain = build_defense("puridefense", read_bundle(embedded_bundle()))
    images = functional.interpolate(some_images(32)[:, :, :6, :6], size=32, mode="bicubic").clamp(0, 1)
    draws = plain.draw(SeededBytes(len(images), torch.Generator().manual_seed(1)))
    expected = plain(images, draws)
    found = defense_for_inference(plain, Placement(CPU, "bfloat16"))(images, draws)
    torch.testing.assert_close(found, expected, rtol=0, atol=LEVEL)
    assert (found - expected).abs().mean() < LEVEL / 10


@torch.inference_mode()
def test_pixels_keep_all_their_digits_where_a_purifier_corrects_nothing(bundle: Bundle) -> None:
    for purifier in bundle.purifiers.values():
        for weights in purifier.decoder.parameters():
            weights.zero_()
    images = torch.arange(256).float().div(255).repeat(12).view(1, 3, 32, 32)
    defense = defense_for_inference(build_defense("puridefense", bundle), Placement(CPU, "bfloat16"))
    draws = defense.draw(SeededBytes(1, torch.Generator()))
    assert torch.equal(defense(images, draws), images)


@precisions
@torch.inference_mode()
def test_a_classifier_gives_the_logits_of_the_plain_one(bundle: Bundle, precision: Precision) -> None:
    expected = bundle.classifier(some_images())
    classifier = classifier_for_inference(bundle.classifier, Placement(CPU, precision))
    found = classifier(some_images())
    assert found.dtype == torch.float32
    assert {str(weights.dtype) for weights in classifier.parameters()} == {f"torch.{precision}"}
    torch.testing.assert_close(found, expected, rtol=0, atol=LOGITS[precision] * float(expected.abs().max()))


@precisions
@torch.inference_mode()
def test_the_plain_networks_stay_as_they_are(bundle: Bundle, precision: Precision) -> None:
    before = {name: one.clone() for name, one in bundle.classifier.state_dict().items()}
    kept = {name: one.clone() for name, one in bundle.purifiers["pgd-edsr"].state_dict().items()}
    classifier_for_inference(bundle.classifier, Placement(CPU, precision))
    defense_for_inference(build_defense("puridefense", bundle), Placement(CPU, precision))
    assert all(torch.equal(one, before[name]) for name, one in bundle.classifier.state_dict().items())
    assert all(torch.equal(one, kept[name]) for name, one in bundle.purifiers["pgd-edsr"].state_dict().items())


@precisions
@pytest.mark.parametrize("normalized", [True, False])
@torch.inference_mode()
def test_an_exported_program_gives_its_logits(precision: Precision, normalized: bool) -> None:
    network = ResNetConfig(width=8, blocks=(1, 1, 1, 1)).build(4).eval()
    program = torch.export.export(
        network, (some_images(2),), dynamic_shapes=({0: torch.export.Dim("count", min=1, max=64)},)
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    read: nn.Module = read_program(file.getvalue())
    plain = Normalized(read, [0.5] * 3, [0.25] * 3) if normalized else read
    expected = plain(some_images())
    found = classifier_for_inference(plain, Placement(CPU, precision))(some_images())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=LOGITS[precision] * float(expected.abs().max()))


@pytest.mark.skipif(int8_problem() is not None, reason=f"no int8 here: {int8_problem()}")
class TestInt8:
    """The classifier computes in integers, purifiers do not."""

    placement = Placement(CPU, "int8")

    @torch.inference_mode()
    def test_the_embedded_classifier_says_the_same(self) -> None:
        plain = read_bundle(embedded_bundle()).classifier
        images = functional.interpolate(some_images(32)[:, :, :6, :6], size=32, mode="bicubic").clamp(0, 1)
        expected = plain(images)
        found = classifier_for_inference(plain, self.placement)(images)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.04 * float(expected.abs().max()))
        assert not torch.equal(found, expected)
        assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9

    @torch.inference_mode()
    def test_purifiers_stay_in_float32(self, bundle: Bundle) -> None:
        plain = build_defense("puridefense", bundle)
        draws = plain.draw(SeededBytes(5, torch.Generator().manual_seed(1)))
        expected = plain(some_images(), draws)
        torch.testing.assert_close(defense_for_inference(plain, self.placement)(some_images(), draws), expected)

    def test_the_plain_network_stays_as_it_is(self, bundle: Bundle) -> None:
        before = {name: one.clone() for name, one in bundle.classifier.state_dict().items()}
        classifier_for_inference(bundle.classifier, self.placement)
        assert all(torch.equal(one, before[name]) for name, one in bundle.classifier.state_dict().items())

    def test_an_exported_program_is_refused(self) -> None:
        file = io.BytesIO()
        torch.export.save(torch.export.export(nn.Conv2d(3, 4, 1), (some_images(2),)), file)
        with pytest.raises(PrecisionMissingError, match="computes as it was exported"):
            classifier_for_inference(read_program(file.getvalue()), self.placement)

    def test_a_classifier_without_a_wide_convolution_is_refused(self) -> None:
        with pytest.raises(PrecisionMissingError, match="no convolution that is wide enough"):
            classifier_for_inference(ResNetConfig(width=1, blocks=(1, 1, 1, 1)).build(4), self.placement)


@pytest.mark.parametrize(("precision", "fewer"), [("float32", True), ("bfloat16", False)])
@torch.inference_mode()
def test_wide_convolutions_take_fewer_multiplications_in_float32(precision: Precision, fewer: bool) -> None:
    classifier = ResNetConfig(width=64, blocks=(1, 1, 1, 1)).build(10).eval()
    images = some_images(4)
    found = classifier_for_inference(classifier, Placement(CPU, precision))
    assert any(isinstance(one, WinogradConvolution) for one in found.modules()) is fewer
    expected = classifier(images)
    torch.testing.assert_close(found(images), expected, rtol=0, atol=LOGITS[precision] * float(expected.abs().max()))
    assert not any(isinstance(one, WinogradConvolution) for one in classifier.modules())
