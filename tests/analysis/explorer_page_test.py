"""The page in headless Chromium: it follows mouse, keyboard and clicks, and draws the maps."""

import base64
import io
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest

from sasa_tf.analysis.explorer.report import write_report
from tests.analysis.small_explorer import ResNet50, SmallModel

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSER = next(
  filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

if not BROWSER:
  pytest.skip("no Chromium is installed", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
  with sync_api.sync_playwright() as playwright:
    launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    yield launched
    launched.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Returns {name: HTML file} of a classifier and a detector."""
  folder = tmp_path_factory.mktemp("pages")
  for name in ("classifier", "detector"):
    small = SmallModel(is_detector=name == "detector")
    write_report(small, ["first.png", "second image.png"], str(folder / f"{name}.html"), title=name)
  return folder


@pytest.fixture
def open_page(browser, files):
  """Opens pages, and checks after the test that they logged no errors and loaded no files."""
  messages, contexts = [], []

  def open_one(name, **options):
    context = browser.new_context(offline=True, **options)
    contexts.append(context)
    page = context.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("requestfailed", lambda request: messages.append(request.url[:80]))
    page.goto(pathlib.Path(files, f"{name}.html").as_uri())
    page.wait_for_selector("html[data-ready=true]")
    return page

  yield open_one
  for context in contexts:
    context.close()
  assert messages == []


def query(page):
  """Returns (x, y) of the query that the page shows."""
  text = page.locator("#readout dd").first.inner_text()
  return tuple(int(number) for number in text.split(" x")[0].split(","))


def pixels_of(page):
  """Returns what the image's canvas shows, int [H, W, 3]."""
  settle(page)
  url = page.evaluate("document.getElementById('canvas').toDataURL()")
  content = base64.b64decode(url.removeprefix("data:image/png;base64,"))
  return np.asarray(PIL.Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def settle(page):
  """Waits until the page has drawn the current state."""
  page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_query_follows_the_mouse_and_the_keyboard(open_page):
  page = open_page("classifier")
  assert query(page) == (24, 16)  # the middle
  box = page.locator("#canvas").bounding_box()
  page.mouse.move(box["x"] + box["width"] * 10.5 / 48, box["y"] + box["height"] * 4.5 / 32)
  settle(page)
  assert query(page) == (10, 4)
  page.locator("#stage").focus()
  page.keyboard.press("PageUp")  # the layer with strides of 4 pixels
  page.keyboard.press("ArrowRight")  # one pixel of the layer, which covers 4 x 4 of the image
  settle(page)
  assert query(page) == (14, 6)
  page.keyboard.press("Shift+ArrowDown")
  settle(page)
  assert query(page) == (14, 22)
  for _ in range(20):
    page.keyboard.press("ArrowRight")
  settle(page)
  assert query(page) == (46, 22)  # the border
  page.wait_for_function("document.querySelector('#status').textContent.includes('column 46')")


def test_heads_are_pinned_by_click_and_key(open_page):
  page = open_page("classifier")
  page.locator(".layer").nth(1).click()
  settle(page)
  heads = page.locator("#heads button")
  assert heads.count() == 4
  before = pixels_of(page)
  heads.nth(2).click()
  settle(page)
  assert heads.nth(2).get_attribute("aria-pressed") == "true"
  assert "head 3" in page.locator("#scope").inner_text()
  assert np.abs(pixels_of(page) - before).max() > 20
  page.locator("#stage").focus()
  page.keyboard.press("0")
  settle(page)
  assert heads.nth(2).get_attribute("aria-pressed") == "false"
  np.testing.assert_array_equal(pixels_of(page), before)
  page.keyboard.press("1")
  settle(page)
  assert heads.nth(0).get_attribute("aria-pressed") == "true"
  page.keyboard.press("PageDown")
  settle(page)
  assert page.locator(".layer").nth(2).get_attribute("aria-checked") == "true"
  assert page.locator("#heads button").count() == 2


def test_heat_map_is_drawn_where_the_window_is(open_page):
  """The window's cells differ from the dimmed image around them."""
  page = open_page("classifier", viewport={"width": 1200, "height": 900})
  page.locator(".layer").nth(1).click()  # windows of 5 x 5 pixels of 4 x 4 around (24, 16)
  shown = pixels_of(page)
  scale = shown.shape[1] / 48
  photo = np.asarray(
    PIL.Image.fromarray(SmallModel().read_image("first.png").pixels).resize(shown.shape[1::-1])
  )
  difference = np.abs(shown - 0.72 * photo - 0.28 * np.array([14, 10, 20])).max(axis=-1)
  window = np.zeros(shown.shape[:2], bool)
  window[int(8 * scale) : int(28 * scale), int(16 * scale) : int(36 * scale)] = True
  far = difference.copy()
  margin = int(0.7 * scale)
  far[
    int(8 * scale) - margin : int(28 * scale) + margin,
    int(16 * scale) - margin : int(36 * scale) + margin,
  ] = 0
  assert np.median(difference[window]) > 40
  assert np.percentile(far[far > 0], 99) < 30


def test_detections_show_what_their_pixels_attend_to(open_page):
  page = open_page("detector")
  buttons = page.locator("#outputs-list button")
  assert buttons.all_inner_texts() == ["</script><b>1 90 %", "</script><b>2 60 %"]
  before = pixels_of(page)
  buttons.nth(1).click()
  settle(page)
  assert buttons.nth(1).get_attribute("aria-pressed") == "true"
  assert query(page) == (38, 25)  # the center of the box
  selected = pixels_of(page)
  assert np.abs(selected - before).max() > 40
  buttons.nth(1).click()
  settle(page)
  assert buttons.nth(1).get_attribute("aria-pressed") == "false"


def test_rollout_covers_what_the_query_can_reach(open_page):
  page = open_page("classifier")
  page.get_by_role("radio", name="Rollout to the image").click()
  shown = pixels_of(page)
  assert "All layers" in page.locator("#scope").inner_text()
  page.get_by_role("radio", name="Window", exact=True).click()
  assert np.abs(pixels_of(page) - shown).max() > 40


def test_images_are_switched(open_page):
  page = open_page("classifier")
  page.get_by_role("radio", name="second image.png").click()
  page.wait_for_selector("#stage[aria-label*='second image.png']")


@pytest.mark.parametrize("width", [375, 1240])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_follows_the_color_scheme(open_page, width, scheme):
  page = open_page("detector", viewport={"width": width, "height": 800}, color_scheme=scheme)
  assert page.evaluate("document.documentElement.scrollWidth") <= width
  background = page.evaluate("getComputedStyle(document.body).backgroundColor")
  brightness = np.mean([int(x) for x in background[4:-1].split(",")])
  assert (brightness > 128) == (scheme == "light")
  image, layers = (page.locator(name).bounding_box() for name in ("#stage", "#layers"))
  beside = layers["x"] >= image["x"] + image["width"]
  assert beside == (width > 860)


def test_everything_has_a_name(open_page):
  page = open_page("detector")
  names = page.evaluate(
    """[...document.querySelectorAll("button, [role=img], [role=radiogroup], [role=application]")]
      .filter((each) => each.checkVisibility())
      .map((each) => each.ariaLabel || each.textContent ||
        each.getAttribute("aria-labelledby")?.split(" ")
          .map((id) => document.getElementById(id).textContent).join(" "))"""
  )
  assert len(names) > 10 and all(name.strip() for name in names)
  for group in ("#views", "#images", "#layers"):  # one stop of the tab key each
    assert page.locator(f"{group} [tabindex='0']").count() == 1


# Moves the mouse once per frame; returns the median time between frames and that of the drawing.
FRAMES = """async (count) => {
  const stage = document.getElementById("stage");
  const box = stage.getBoundingClientRect();
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const [periods, drawing] = [[], []];
  for (let i = 0; i < count; i++) {
    const start = await frame();
    stage.dispatchEvent(new PointerEvent("pointermove", {
      pointerType: "mouse",
      clientX: box.x + box.width * (0.1 + 0.8 * i / count),
      clientY: box.y + box.height * (0.1 + 0.8 * (i * 7 % count) / count),
    }));
    const before = performance.now();
    const end = await frame();  // its callbacks run after those of the page
    drawing.push(performance.now() - Math.max(before, end));
    periods.push(end - start);
  }
  const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
  return [median(periods), median(drawing)];
}"""


def test_frames_are_drawn_at_60_hertz(open_page):
  page = open_page("classifier")
  _, drawing = page.evaluate(FRAMES, 40)
  assert drawing < 16  # of 16.7 ms; about 1 ms on an idle machine


@pytest.mark.slow
def test_resnet_50_at_224_pixels(browser, tmp_path, record_property):
  """Three images make a page of less than 10 MB, which follows the mouse at 60 Hz."""
  file = tmp_path / "report.html"
  write_report(ResNet50(), ["a", "bb", "ccc"], str(file), title="ResNet-50")
  assert file.stat().st_size < 10e6
  context = browser.new_context(viewport={"width": 1240, "height": 900})
  page = context.new_page()
  page.goto(file.as_uri())
  page.wait_for_selector("html[data-ready=true]")
  period, drawing = page.evaluate(FRAMES, 60)
  context.close()
  record_property("megabytes", file.stat().st_size / 1e6)
  record_property("drawing_ms", drawing)
  print(f"{file.stat().st_size / 1e6:.2f} MB, {drawing:.1f} ms of drawing, {period:.1f} ms a frame")
  assert drawing < 16
