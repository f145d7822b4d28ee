"""The module in the place of torch._dynamo gives way to the real one as soon as somebody needs it."""

import subprocess
import sys

import pytest

NEEDS = {
    "a submodule": "import torch._dynamo.config",
    "torch.compile": "assert torch.compile(torch.sin, backend='eager')(torch.zeros(2)).sum() == 0",
    "an attribute": "assert torch._dynamo.config.cache_size_limit > 0",
    "an import": "from torch._dynamo.utils import counters",
}


@pytest.mark.slow
@pytest.mark.parametrize("need", NEEDS)
def test_the_real_module_is_imported_when_it_is_needed(need: str) -> None:
    code = (
        "import sys, torch\n"
        "from mnist_exp.system import lazy_dynamo\n"
        "lazy_dynamo.install()\n"
        "weight = torch.ones(3, requires_grad=True)\n"
        "optimizer = torch.optim.Adam([weight])\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "assert 'torch._dynamo.utils' not in sys.modules\n"
        f"{NEEDS[need]}\n"
        "assert 'torch._dynamo.utils' in sys.modules\n"
        "optimizer.step()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_real_module_stays_where_it_is_imported_already() -> None:
    code = (
        "import torch._dynamo, sys\n"
        "from mnist_exp.system import lazy_dynamo\n"
        "lazy_dynamo.install()\n"
        "assert sys.modules['torch._dynamo'] is torch._dynamo\n"
        "assert not isinstance(torch._dynamo, lazy_dynamo._Dynamo)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_look_through_all_modules_imports_nothing() -> None:
    """As inspect.getmodule does, in the middle of other imports of torch."""
    code = (
        "import inspect, sys, torch\n"
        "from mnist_exp.system import lazy_dynamo\n"
        "lazy_dynamo.install()\n"
        "inspect.getmodule(inspect.currentframe())\n"
        "assert 'torch._dynamo.utils' not in sys.modules\n"
        "import torch.distributed.tensor\n"
        "assert torch._dynamo.config\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
