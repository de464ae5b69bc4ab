import pytest

from sasa_tf.errors import UserError
from sasa_tf.serving.clients import classification_client
from sasa_tf.serving.clients.unreadable_images import UnreadableImageError, UnreadableImages


def test_other_images_come_first(monkeypatch):
  def classify(model, image, top_k):
    if "bad" in image:
      raise UnreadableImageError(f"{image}: is broken.")
    return [classification_client.Prediction(0, "猫", 0.5)]

  monkeypatch.setattr(classification_client, "classify", classify)
  lines = classification_client.classification_lines(None, ["a\n", "bad\n1", "b", "bad2"], 1)
  found = []
  with pytest.raises(UserError) as caught:
    found.extend(iter(lines))  # extends up to the error
  row = "   50.0%  猫" + " " * 19 + "#" * 15
  assert found == ["a\\n", row, "b", row]
  expected = "2 of 4 images cannot be read:\n  bad\\n1: is broken.\n  bad2: is broken."
  assert str(caught.value) == expected


@pytest.mark.parametrize(("num_errors", "end"), [(10, "9: broken"), (11, "and 1 more.")])
def test_long_lists_are_cut(num_errors, end):
  unreadable = UnreadableImages()
  unreadable.raise_errors(20)
  for number in range(num_errors):
    with unreadable.collected():
      raise UnreadableImageError(f"{number}: broken")
  with pytest.raises(UnreadableImageError, match=rf"^{num_errors} of 20 images [^$]*{end}$"):
    unreadable.raise_errors(20)


def test_a_single_image_has_its_own_message():
  unreadable = UnreadableImages()
  with unreadable.collected():
    raise UnreadableImageError("a: broken")
  with pytest.raises(UnreadableImageError, match=r"^a: broken$"):
    unreadable.raise_errors(1)
