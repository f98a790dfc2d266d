"""The pytest plugin, in a pytest of its own: another process, with nothing but the package installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytest_plugins = ["pytester"]

TESTING = ROOT / "docs" / "testing.md"

APP = """
    from dependency_injector import providers
    from aeros import Container, WebServer, inject

    class Numbers:
        number = 1

    class NumberContainer(Container):
        numbers = providers.Singleton(Numbers)

    app = WebServer(__name__, container=NumberContainer())

    @app.route("/")
    @app.cache(timeout=60)
    async def index(numbers: Numbers = inject(NumberContainer.numbers)) -> dict[str, int]:
        return {"number": numbers.number}
"""

INI = """[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""

CONFTEST = """
    import pytest
    from numbers_app import app as numbers

    @pytest.fixture{scope}
    def app():
        return numbers
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with an application that all tests share."""
    pytester.makepyfile(numbers_app=APP)
    pytester.makeconftest(CONFTEST.format(scope='(scope="session")'))
    pytester.makeini(INI)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Runs the project's tests."""
    return project.runpytest_subprocess("-p", "no:randomly", "-p", "no:cacheprovider", *arguments)


def test_the_fixtures_stand_on_the_project_s_application(project: pytest.Pytester) -> None:
    """Client, container, server, override and clock."""
    project.makepyfile(
        test_it="""
        import httpx
        import pytest
        from aeros.testing import assert_cached, cache_outcome
        from numbers_app import Numbers

        class Two(Numbers):
            number = 2

        @pytest.mark.asyncio
        async def test_client(client):
            assert await (await client.get("/")).get_json() == {"number": 1}

        def test_container(app, container):
            assert container is app.container

        def test_live_server(live_server, override, container, cache_clock):
            override(container.numbers, Two())
            with httpx.Client(base_url=live_server.url) as browser:
                assert browser.get("/").json() == {"number": 2}
                assert_cached(browser.get("/"))
                cache_clock.advance(61)
                assert cache_outcome(browser.get("/")).is_stored

        def test_the_override_is_over(container):
            assert container.numbers().number == 1
            assert container.cache.overridden == ()
        """
    )
    run(project).assert_outcomes(passed=4)


@pytest.mark.parametrize("backend", ["asyncio"])
def test_the_fixtures_work_with_anyio(project: pytest.Pytester, backend: str) -> None:
    """Its own plugin runs the tests."""
    project.makepyfile(
        test_it=f"""
        import pytest

        @pytest.fixture
        def anyio_backend():
            return {backend!r}

        @pytest.mark.anyio
        async def test_client(client):
            assert await (await client.get("/")).get_json() == {{"number": 1}}
        """
    )
    run(project).assert_outcomes(passed=1)


LEAKS = {
    "by the provider": "container.numbers.override(Two())",
    "by the kit": "KEPT.append(override_(container.numbers, Two())); KEPT[0].__enter__()",
    "by the container": "container.override_providers(numbers=Two())",
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS.keys())
@pytest.mark.parametrize("shared", ["session fixture", "module variable"])
def test_an_override_that_outlives_its_test_fails_that_test(
    project: pytest.Pytester, leak: str, shared: str
) -> None:
    """By its name; the next one gets what it should."""
    if shared == "module variable":
        project.makeconftest("")
    getting = "" if shared == "session fixture" else "from numbers_app import app\ncontainer = app.container"
    parameter = "container" if shared == "session fixture" else ""
    lines = [
        "from aeros.testing import override as override_",
        "from numbers_app import Numbers",
        *getting.splitlines(),
        "KEPT = []",
        "class Two(Numbers):",
        "    number = 2",
        f"def test_clean_before({parameter}):",
        "    assert container.numbers().number == 1",
        f"def test_leaking({parameter}):",
        f"    {leak}",
        "    assert container.numbers().number == 2",
        f"def test_clean_after({parameter}):",
        "    assert container.numbers().number == 1",
        "    assert container.numbers.overridden == ()",
    ]
    project.makepyfile(test_it="\n".join(lines))
    result = run(project)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        ["*test_it.py::test_leaking has left overrides in force: numbers (they are undone now)*"]
    )


def test_an_override_of_an_application_of_the_test_s_own_is_no_leak(project: pytest.Pytester) -> None:
    """It is gone with the test."""
    project.makeconftest(
        """
        import pytest
        from aeros import WebServer

        @pytest.fixture
        def app():
            return WebServer("own")
        """
    )
    project.makepyfile(
        test_it="""
        from aeros import Cache

        def test_override(app):
            app.container.cache.override(Cache())
        """
    )
    run(project).assert_outcomes(passed=1)


def test_an_override_that_was_there_before_stays(project: pytest.Pytester) -> None:
    """A fixture of the session may override for all."""
    project.makeconftest(
        CONFTEST.format(scope='(scope="session")')
        + """
    from numbers_app import Numbers

    class Two(Numbers):
        number = 2

    @pytest.fixture(scope="session", autouse=True)
    def two(app):
        with app.container.numbers.override(Two()):
            yield
"""
    )
    project.makepyfile(
        test_it="""
        def test_one(container):
            assert container.numbers().number == 2

        def test_two(container, override):
            override(container.numbers, 3)
            assert container.numbers() == 3

        def test_three(container):
            assert container.numbers().number == 2
        """
    )
    run(project).assert_outcomes(passed=3)


def test_aeros_is_not_imported_for_who_does_not_use_it(pytester: pytest.Pytester) -> None:
    """The plugin costs others nothing."""
    pytester.makepyfile(
        test_it="""
        import sys

        def test_nothing():
            assert "aeros" not in sys.modules
            assert "pytest_aeros" in sys.modules
        """
    )
    run(pytester).assert_outcomes(passed=1)


def named_blocks(page: Path) -> dict[str, str]:
    """Returns the programs of a page that begin with the name of their file."""
    blocks = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return dict(blocks)


def test_the_page_s_own_tests_pass(pytester: pytest.Pytester) -> None:
    """As they stand there, each in the file that it names."""
    found = named_blocks(TESTING)
    assert set(found) == {"conftest.py", "shop/app.py", "test_shop.py"}
    for name, text in found.items():
        file = pytester.path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    pytester.makeini(INI + "pythonpath = .\n")
    run(pytester).assert_outcomes(passed=4)


async def test_the_page_s_other_programs_run() -> None:
    """Each by itself."""
    others = re.findall(
        r"^```python\n(?!# \S+\.py\n)(.*?)^```$", TESTING.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(others) == 2
    for block in others:
        names: dict[str, Any] = {"__name__": "page"}
        exec(compile(block, "testing.md", "exec"), names)
        if "job" in names:
            await names["job"]()
