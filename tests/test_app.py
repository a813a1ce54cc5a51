"""The app: what its panels answer, and the whole of it in a browser."""
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ipywidgets")
from signver_kit import app
from signver_kit.synthetic import SyntheticSigners


def png(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


class NoPipeline:
    """Stands for the models where no network is asked."""
    gallery = None

    def annotate(self, content, **place):
        raise app.AppError("this pipeline sees nothing")


@pytest.fixture
def panel():
    made = app.FolderPanel(app.Desk(pipeline=NoPipeline()))
    yield made
    made.desk.close()


def test_whatever_goes_wrong_is_a_message(panel):
    def fails():
        raise ZeroDivisionError("of the author's")
    button = panel.button("x", fails, "a hint")
    button.click()
    assert 'role="alert"' in panel.message.value and "ZeroDivisionError: of the author&#x27;s" in panel.message.value and not button.disabled
    panel.run(lambda: (_ for _ in ()).throw(ValueError("<b>rule</b>, value, remedy")))
    assert "&lt;b&gt;rule" in panel.message.value  # escaped, in the words of the error
    panel.run(lambda: "<p>shown</p>")
    assert panel.answer.value == "<p>shown</p>" and ">done<" in panel.message.value


def test_bad_files_become_rows_and_a_spreadsheet_runs_none_of_them(panel):
    files = [("=cmd()|x.png", b"no picture"), ("page.png", png(np.full((40, 40), 255, np.uint8)))]
    rows = list(app.tag_rows(panel.desk.pipeline, files))
    assert [row["document"] for row in rows] == ["=cmd()|x.png", "page.png"] and all(row["problem"] for row in rows)
    shown = app.rows_html([{"document": "=cmd()<script>", "page": 1, "problem": ""}])
    assert "<script>" not in shown
    import base64
    import re
    assert "'=cmd()" in base64.b64decode(re.search(r"base64,([^\"]+)", shown)[1]).decode("utf-8-sig")


def test_files_are_refused_by_size_before_they_are_looked_at(monkeypatch):
    monkeypatch.setenv("SIGNVER_APP_LIMIT_MB", "0.5")
    with pytest.raises(app.AppError, match=r"big.png has 0.6 MB, at most 0 MB|big.png has 0.6 MB"):
        app.uploaded([{"name": "big.png", "content": memoryview(bytes(600_000))}])
    with pytest.raises(app.AppError, match="empty"):
        app.uploaded([{"name": "none.png", "content": memoryview(b"")}])


def browser_path():
    """A Chromium of this machine, or None."""
    asked = os.environ.get("SIGNVER_CHROMIUM")
    return asked or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)


@pytest.fixture(scope="module")
def visitor(tmp_path_factory):
    """A browser's page that shows the app, served by Voilà on this machine."""
    playwright = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("voila")
    if browser_path() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium was found: install one (apt-get install chromium), or name it in SIGNVER_CHROMIUM")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    folder = tmp_path_factory.mktemp("app")
    log = open(folder / "log.txt", "w")
    server = subprocess.Popen(app.voila_command(folder, port=port, browser=False), env={**os.environ, "SIGNVER_APP_LIMIT_MB": "1", "SIGNVER_APP_GALLERY": str(folder / "gallery")},
                              cwd=folder, stdout=log, stderr=log)
    try:
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=browser_path(), args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"])
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.set_default_timeout(240_000)
            page.strangers = []
            own = (f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/", "data:", "blob:")
            page.on("requestfailed", lambda request: request.url.startswith(own) or page.strangers.append((request.url, request.failure)))
            page.on("requestfinished", lambda request: request.url.startswith(own) or page.strangers.append((request.url, "answered")))
            wait_for(f"http://127.0.0.1:{port}/static/voila.js", server)
            page.goto(f"http://127.0.0.1:{port}/")
            page.get_by_role("heading", name="signver_kit").wait_for()
            yield page
            browser.close()
    finally:
        server.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)      # as Ctrl-C: it ends its kernels too
        server.wait(30)
        log.close()


def wait_for(url, server):
    end = time.monotonic() + 120
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(url)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError("the app's server did not start")


def upload(page, label, *files):
    """Choose files in a FileUpload, as a hand would."""
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name=label).locator("visible=true").click()
    chosen.value.set_files([{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files])
    page.get_by_role("button", name=f"{label} ({len(files)})").locator("visible=true").wait_for()


def said(page, text, role="status"):
    page.get_by_role(role).locator("visible=true").filter(has_text=text).first.wait_for()


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ended_as_services_are_it_leaves_no_server_behind(tmp_path):
    pytest.importorskip("voila")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"from signver_kit.app import run_app; raise SystemExit(run_app(port={port}, browser=False))"
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    wait_for(f"http://127.0.0.1:{port}/static/", process)
    process.terminate()
    assert process.wait(30) == 0, (tmp_path / "log").read_text()
    with socket.socket() as asked:
        assert asked.connect_ex(("127.0.0.1", port)) != 0, "somebody still listens"


@pytest.fixture(scope="module")
def signatures():
    signers = SyntheticSigners(3, seed=6, genuine=6, forgeries=2)
    names = list(signers.set.signers)
    return {name: [png(signers.image(one, "genuine", index)) for index in range(5)] for name, one in zip("abc", names)}


def test_two_hands_are_compared(visitor, signatures):
    upload(visitor, "references: genuine signatures", *[(f"{number}.png", one) for number, one in enumerate(signatures["a"][:3])])
    upload(visitor, "questioned signature", ("in doubt.png", signatures["a"][3]))
    visitor.get_by_role("button", name="Compare", exact=True).click()
    said(visitor, "accepted")
    for alt in ("histograms of distances", "both signatures, their ink coloured", "questioned signature"):
        assert visitor.get_by_role("img", name=alt).first.is_visible()
    assert visitor.get_by_text("likelihood ratio against skilled forgeries").is_visible()
    visitor.get_by_label("or made up:").select_option("another signer")
    visitor.get_by_role("button", name="Compare made-up ones").click()
    said(visitor, "rejected")


def test_bad_files_are_answered(visitor):
    upload(visitor, "questioned signature", ("notes.png", b"these are words"))
    visitor.get_by_role("button", name="Compare", exact=True).click()
    said(visitor, "notes.png", "alert")
    upload(visitor, "questioned signature", ("huge.png", os.urandom(1_300_000)))
    visitor.get_by_role("button", name="Compare", exact=True).click()
    said(visitor, "huge.png has 1.2 MB, at most 1 MB are taken", "alert")


def test_people_are_enrolled_found_and_erased(visitor, signatures):
    visitor.get_by_role("tab", name="People on file").click()
    for name in "ab":
        upload(visitor, "signatures of one person", *[(f"{number}.png", one) for number, one in enumerate(signatures[name][:3])])
        visitor.get_by_label("name", exact=True).fill(f"Person <{name}>")
        visitor.get_by_role("button", name="Enrol", exact=True).click()
        said(visitor, f"3 signature(s) of Person <{name}> are on file now")
    upload(visitor, "signatures of one person", ("whose.png", signatures["b"][4]))
    visitor.get_by_role("button", name="Whose is it?").click()
    said(visitor, "probably Person <b>")
    assert visitor.get_by_role("row").locator("visible=true").nth(1).inner_text().split("\t")[:2] == ["1", "Person <b>"]
    visitor.get_by_label("person on file").select_option("Person <a> (3)")
    visitor.get_by_role("button", name="Verify claim").click()
    said(visitor, "claimed to be Person <a>: rejected")
    visitor.get_by_role("button", name="Erase person").click()
    said(visitor, "Person <a> is erased: 3 signature(s)")


def test_pages_are_looked_at_with_the_keyboard_alone(visitor):
    visitor.get_by_role("tab", name="Look at a page").focus()
    visitor.keyboard.press("Enter")
    button = visitor.get_by_role("button", name="Look at a made-up letter")
    if not button.is_visible():  # Lumino's tabs want a click or the arrow keys
        visitor.get_by_role("tab", name="Look at a page").click()
    button.focus()
    visitor.keyboard.press("Enter")
    said(visitor, "signed (")
    assert visitor.get_by_role("img", name="the page with frames around what was found").is_visible()


def test_many_pages_are_tagged_and_the_bad_one_named(visitor):
    from signver_kit.documents import SyntheticPages
    page = SyntheticPages(8, seed=6, dpi=100, kinds=("letter",)).page(0).image
    visitor.get_by_role("tab", name="Tag many pages").click()
    upload(visitor, "pages: pictures and PDFs", ("letter.png", png(page)), ("broken.png", b"x"))
    visitor.get_by_role("button", name="Tag", exact=True).click()
    said(visitor, "1 page(s) looked at, 1 file(s) could not be read", "alert")
    rows = visitor.get_by_role("row").locator("visible=true").all_inner_texts()
    assert any(row.startswith("letter.png") and "yes" in row for row in rows) and any(row.startswith("broken.png") for row in rows)


def test_nothing_leaves_the_machine_and_everything_has_a_name(visitor):
    assert [why for _, why in visitor.strangers if why != "csp"] == []  # Voilà's page asks for icons elsewhere, and the policy forbids it
    for role in ("button", "tab", "combobox", "textbox"):
        for one in visitor.get_by_role(role).locator("visible=true").all():
            assert one.evaluate("e => (e.getAttribute('aria-label') || e.innerText || e.title || (e.labels && e.labels[0] && e.labels[0].innerText) || '').trim()"), one.evaluate("e => e.outerHTML")
