"""The pages in a real browser; `tests/install-system-packages` installs it."""

import html
import json
import re
import subprocess
from importlib.resources import files

import pytest
import records

from edgekit.report.bench_page import bench_page
from edgekit.report.build_page import build_page

# Only what the tests' own copies of a page hold: what the browser made of it.
MEASURE = """<script>addEventListener("load", () => {
    const box = node => node.getBoundingClientRect();
    const overflowing = [...document.querySelectorAll("main *")].filter(node =>
        !node.closest(".scroll") && box(node).right > innerWidth + 1).map(node => node.tagName);
    const cut = [...document.querySelectorAll("svg text")].filter(node => {
        const [inner, outer] = [box(node), box(node.closest("svg"))];
        return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1;
    }).map(node => node.textContent);
    parent.document.title = JSON.stringify({
        inner: innerWidth, page: document.documentElement.scrollWidth, overflowing, cut,
        drawn: [...document.querySelectorAll("svg")].filter(node => box(node).width > 50).length,
        fetched: performance.getEntriesByType("resource").map(entry => entry.name),
        headings: [...document.querySelectorAll("h2")].filter(node => box(node).height > 0)
            .map(node => node.textContent),
        paper: getComputedStyle(document.body).backgroundColor,
    });
});</script>"""
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=2000"
).split()
PAGES = {
    "build": lambda: build_page(records.build()),
    "missed": lambda: build_page(records.missed_build()),
    "hostile": lambda: build_page(records.hostile_build()),
    "sustained": lambda: bench_page(records.sustained(machine=records.PI4), records.manifest()),
    "bench": lambda: bench_page(records.bench(machine=records.PI4, warnings=["busy"]), records.manifest()),
}


def title_in_browser(page, folder, *flags):
    """The title of the page once the browser has shown it."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        "chromium",
        *FLAGS,
        *flags,
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        path.as_uri(),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    return re.search(r"<title>(.*?)</title>", shown, re.DOTALL).group(1)


def measured(page, folder, width, *flags):
    """What the browser made of the page in a frame of that width; its windows are never narrower than 500."""
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert without_policy != page
    inner = without_policy.replace("</main>", f"</main>{MEASURE}")
    frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(inner)}"></iframe>'
    return json.loads(title_in_browser(f"<!doctype html><title></title>{frame}", folder, *flags))


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_fits_its_window_and_its_charts_are_drawn_whole(name, width, tmp_path):
    found = measured(PAGES[name](), tmp_path, width)
    assert found["inner"] == width
    assert found["page"] <= width
    assert found["overflowing"] == []
    assert found["cut"] == []
    assert found["drawn"] >= 4
    assert found["fetched"] == []


def test_the_runtimes_stand_between_the_budget_and_the_candidates(tmp_path):
    headings = measured(PAGES["build"](), tmp_path, 400)["headings"]
    assert headings[headings.index("Budget") :][:3] == ["Budget", "Runtimes", "Candidates"]


def test_a_page_is_dark_where_the_reader_wants_it_dark(tmp_path):
    dark = measured(
        PAGES["bench"](), tmp_path, 400, "--force-dark-mode", "--blink-settings=preferredColorScheme=0"
    )
    assert dark["paper"] == "rgb(20, 23, 28)"


def test_the_pages_own_policy_keeps_scripts_from_running(tmp_path):
    page = PAGES["build"]().replace("</main>", f"</main>{MEASURE}")
    assert title_in_browser(page, tmp_path) == "examples/digits/task.py on rpi4: PREDICTED"


def luminance(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first, second):
    darker, lighter = sorted(map(luminance, (first, second)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_its_ground_in_light_and_dark(scheme):
    style = files("edgekit.report").joinpath("style.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style.split(":root {")[scheme + 1]))
    pairs = [("ink", "paper"), ("ink", "card"), ("soft", "paper"), ("soft", "card"), ("ink", "accent-soft")]
    pairs += [("accent", "card"), ("ink", "track"), ("on-dot", "met"), ("on-dot", "not-met")]
    for kind in ("met", "predicted", "not-met", "unproven"):
        pairs += [(kind, f"{kind}-soft"), (kind, "card"), ("ink", f"{kind}-soft")]
    found = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: value for pair, value in found.items() if value < 4.5} == {}  # WCAG 2.2, AA
