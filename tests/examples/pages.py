"""A page of HTML, read back."""

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Ids, what is pointed to, pictures without a text, and whether every tag is closed."""

    def __init__(self):
        super().__init__()
        self.ids, self.targets, self.open, self.svgs, self.texts = [], [], [], 0, 0

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.ids += [named["id"]] if "id" in named else []
        self.targets += [named["href"][1:]] if named.get("href", "").startswith("#") else []
        self.svgs += tag == "svg" and named.get("role") == "img"
        self.texts += tag == "desc"
        if tag not in ("meta", "link", "br", "img", "hr", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def read(text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader
