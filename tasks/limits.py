"""A GPU is used by one run at a time, whoever started it: a global concurrency limit of the Prefect server.

The slot is taken inside the stage's body, so that cached work never waits, and other stages go on beside it.
The server takes it back from a run that died when its lease ends. An embedded server is left out: nobody
else is on it, and it has no service that would take a slot back.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_run_logger

from tasks.progress import stop_if_cancelled

GPU = "gpu"
LEASE = 60.0
"""Seconds after which the slot of a dead run comes back; a live one renews its lease."""
LOOK = 5.0
"""Seconds between two looks whether a waiting run was cancelled."""


def has_gpu() -> bool:
    """Whether this machine has a GPU that the network would run on."""
    import torch  # only runs that have something to forward ask

    return torch.cuda.is_available()


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Hold a slot of the limit `gpu` for as long as the block lasts; without a GPU, or a server, nothing is held.

    The limit is made with one slot where it is missing; more are given in the Prefect UI.

    Raises:
        Cancelled: if the run is cancelled while it waits.
    """
    with ExitStack() as held:
        with get_client(sync_client=True) as client:
            is_shared = client.server_type != ServerType.EPHEMERAL and has_gpu()
            if is_shared:
                _make_limit(client)
        if is_shared:
            get_run_logger().info("waiting for a slot of the limit %r", GPU)
            while not _taken(held):
                stop_if_cancelled()
        yield


def _make_limit(client: SyncPrefectClient) -> None:
    try:
        client.read_global_concurrency_limit_by_name(GPU)
    except ObjectNotFound:
        with suppress(ObjectAlreadyExists):  # another run was faster
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU, limit=1))


def _taken(held: ExitStack) -> bool:
    """Wait a little for a slot; whether it is now held."""
    slot = concurrency(
        GPU, timeout_seconds=LOOK, lease_duration=LEASE, strict=True, raise_on_lease_renewal_failure=False
    )
    try:
        held.enter_context(slot)
    except TimeoutError:
        return False
    return True
