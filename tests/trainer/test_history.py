"""What a run tells of the code that trained."""

import platform

from trainer.history import versions


def test_the_versions_of_all_that_decides_a_result_are_told() -> None:
    told = versions()

    assert told.keys() == {"purigate", "python", "torch", "torchvision", "lightning-fabric", "commit"}
    assert told["python"] == platform.python_version()
