"""Every page of the site in a headless Chromium, on a phone and on a desk: `make test-browser`.

Looks at build/site/html, which `make site` writes.
"""

import functools
import json
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

from mtl_lib.paths import ROOT

HTML = ROOT / "build" / "site" / "html"
AXE = "axe-core@4.14.1"
PHONE, DESK = (390, 844), (1300, 1000)

# What is wrong with the page that is open, everything unfolded.
FAULTS = r"""
const found = [];
for (const image of document.images)
  if (image.getAttribute("src") && !image.naturalWidth) found.push("no picture: " + image.src);
for (const math of document.querySelectorAll(".math"))
  if (!math.querySelector("mjx-container")) found.push("no formula: " + math.textContent);
for (const error of document.querySelectorAll("mjx-merror, [data-mjx-error]"))
  found.push("MathJax: " + error.textContent);
const walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const raw = /\$[^$]+\$|\\\(|\\\[/.test(walker.currentNode.data);
  if (raw && !walker.currentNode.parentElement.closest("pre, code, script, mjx-container, .math"))
    found.push("raw formula: " + walker.currentNode.data.trim());
}
for (const {name} of performance.getEntriesByType("resource"))
  if (!name.startsWith(location.origin) && !name.startsWith("data:")) found.push("asks " + name);
const wide = document.documentElement.scrollWidth;
if (wide > innerWidth) {
  const bounds = (e) => e.getBoundingClientRect().right;
  const boxes = [...document.querySelectorAll("article *")].filter((e) => bounds(e) > innerWidth);
  found.push(`${wide} wide: ` + boxes.slice(0, 3).map((e) => e.outerHTML.slice(0, 120)).join(" "));
}
return found;
"""
READY = """
const done = arguments[arguments.length - 1];
for (const part of document.querySelectorAll("details")) part.open = true;
const formulas = window.MathJax ? MathJax.startup.promise : Promise.resolve();
formulas.then(() => setTimeout(done, 50));
"""
# Of the coloured words of code one of each kind is kept: thousands would take minutes.
SHORTER = """
const seen = new Set();
for (const span of document.querySelectorAll("pre span[class]")) {
  if (seen.has(span.className)) span.replaceWith(...span.childNodes);
  seen.add(span.className);
}
"""
# As `serious` or worse, each rule with the first places that break it.
CHECK = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => done(violations
  .filter(({impact}) => impact == "serious" || impact == "critical")
  .map(({id, nodes}) => `${id} (${nodes.length}): ` + nodes.slice(0, 3).map((node) =>
    node.html.slice(0, 150) + " " + node.any.map((check) => check.message).join("; ").slice(0, 150)
  ).join(" | "))));
"""


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Page(HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links = {""}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        self.links += filter(None, (given.get("href"), given.get("src")))


@pytest.fixture(scope="module")
def pages():
    found = {path: Page(path) for path in sorted(HTML.rglob("*.html"))}
    if not found:
        pytest.fail("there is no site: make site")
    return found


@pytest.fixture(scope="module")
def address(pages):
    handler = functools.partial(Silent, directory=str(HTML))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The source of axe-core."""
    if not shutil.which("npm"):
        pytest.skip("npm, which fetches axe-core, is not there")
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(folder), AXE]
    subprocess.run(command, check=True, timeout=120)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def opened(browser, address: str, pages, size: tuple[int, int], scheme: str):
    """Opens one page after another, everything in it unfolded; yields their names."""
    width, height = size
    shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    wish = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wish)
    browser.set_script_timeout(180)
    for path in pages:
        name = path.relative_to(HTML).as_posix()
        browser.get(f"{address}/{name}")
        browser.execute_async_script(READY)
        yield name


def test_every_link_meets_a_file_and_its_anchor(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if "://" in link or link.startswith(("data:", "mailto:")):
                continue
            file, anchor = urldefrag(unquote(link.partition("?")[0]))
            target = (path.parent / file).resolve() if file else path
            met = target in pages and anchor in pages[target].anchors
            if not (met or target.is_file() and target not in pages):
                broken.append(f"{path.relative_to(HTML)}: {link}")
    assert not broken


def test_every_page_shows_all_it_has_on_a_phone(browser, address, pages):
    faults = []
    for name in opened(browser, address, pages, PHONE, "light"):
        found = browser.execute_script(FAULTS)
        found += [entry["message"] for entry in browser.get_log("browser")]
        faults += [f"{name}: {fault}" for fault in found]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_every_page_is_accessible(browser, address, pages, axe, size, scheme):
    faults = []
    for name in opened(browser, address, pages, size, scheme):
        browser.execute_script(SHORTER)
        browser.execute_script(axe)
        faults += [f"{name}: {fault}" for fault in browser.execute_async_script(CHECK)]
    assert not faults, "\n".join(faults)


def test_the_search_finds_a_word_of_a_chapter(browser, address):
    browser.get(f"{address}/search.html?q=surgery")
    script = """
    const done = arguments[arguments.length - 1];
    const look = () => {
      const found = [...document.querySelectorAll("#search-results li a")].map((a) => a.href);
      if (found.length) done(found); else setTimeout(look, 100);
    };
    look();
    """
    browser.set_script_timeout(30)
    found = browser.execute_async_script(script)
    assert any("06_gradient_surgery" in link for link in found), json.dumps(found)
