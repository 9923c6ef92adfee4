"""What every test runs under: one thread, no hub, a cache of its own; set before heavy imports."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import settings

# The libraries read these once, when first imported. One thread: two test processes share two cores, and
# OpenMP's spinning threads make small models slower by an order of magnitude on a busy machine.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Tests that need the hub are marked `network` and are run with HF_HUB_OFFLINE=0.
_offline = os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", _offline)

# A cache per test process: nothing comes from, or stays in, the home folder of whoever runs the tests, and
# no two processes write the same cached model code.
_cache = tempfile.mkdtemp(prefix="rlnas-tests-")
for _name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
    os.environ.pop(_name, None)
os.environ["HF_HOME"] = _cache

# No deadline: the first example of a test often pays for an import. In continuous runs always the same
# examples, so that a red one is a change's doing; new ones everywhere else.
settings.register_profile("rlnas", parent=settings.default, deadline=None, derandomize="CI" in os.environ)
settings.load_profile("rlnas")


def pytest_unconfigure() -> None:
    """Remove the cache."""
    shutil.rmtree(_cache, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of this machine; gives the module."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'rlnas[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        ray.init(
            address="local",
            num_cpus=4,
            resources={"edge": 1},
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=2 * 10**8,
        )
    except Exception as error:  # e.g. in a container without a network of its own
        pytest.skip(f"Ray does not start here: {error}")
    yield ray
    ray.shutdown()
