"""What those have to know of a request who wait for its environment: neither its options nor its lock file."""

from envsync.launch import Environment, fast_lane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from envsync.launch.request import Request


class Demand:
    """One request's demand for an environment.

    :ivar lock: the lock file, to be shown
    :ivar timeout: seconds to wait for others, None without limit
    :ivar quiet: nobody wants to hear for whom one waits
    :ivar verbose: everybody wants to hear all
    :ivar unseen: it will do with an environment in which nobody can tell whether commands run
    """

    __slots__ = ("_request", "environment", "lock", "quiet", "timeout", "unseen", "verbose")

    def __init__(self, request: "Request", environment: Environment) -> None:
        self._request = request
        self.environment = environment
        self.lock = request.lock
        self.timeout = request.timeout
        self.quiet = request.flag("quiet")
        self.verbose = request.flag("verbose")
        self.unseen = "{digest}" in request.env_template or request.text("busy") == "ignore"

    @property
    def key(self) -> str:
        """Stands for what is asked for: those of one key share what becomes of it."""
        return self._request.key

    def enter(self, *, accept_racy: bool = False, share: bool = True) -> fast_lane.Entry | None:
        """Share the in-use lock if the environment is current, as `envsync.launch.fast_lane.enter` does."""
        return fast_lane.enter(self._request, self.environment, accept_racy=accept_racy, share=share)

    def is_named(self) -> bool:
        """Tell whether the stamp is for this request, whether or not it still fits what it vouches for."""
        return fast_lane.is_named(self._request, self.environment)
