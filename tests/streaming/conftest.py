"""One browser for all tests that need it, since starting it takes longer than they do; an avatar that is served."""

import pytest

from tests.streaming.browser import Browser, missing_programs, wait_for
from tests.streaming.live_scenes import scene, trained  # noqa: F401
from tests.streaming.page_server import LEFT, RED, WINDOW, Painter, painted, serving


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if missing := missing_programs():
        pytest.skip(f"{' and '.join(missing)} not found")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    browser.resize(*WINDOW)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def shared_server():
    with serving() as server:
        yield server


@pytest.fixture
def painter(browser, shared_server) -> Painter:
    """The page has just been opened, and shows a picture."""
    browser.log("browser")
    browser.go(shared_server.url)
    wait_for(lambda: painted(browser, *LEFT, RED))
    yield shared_server.painter
    assert browser.log("browser") == []  # no error, nothing that the policy held back
