"""A parsed HTML page: its tags, its scripts and its text."""

import html.parser


class Page(html.parser.HTMLParser):
    """Tags with their attributes, scripts by id, and all text; asserts that the tags close in order."""

    VOID = ("img", "meta", "link", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.scripts, self.text, self.script = [], [], {}, [], None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.script = attributes.get("id", "script")
            self.scripts[self.script] = ""

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.script = None if tag == "script" else self.script

    def handle_data(self, data):
        if self.script:
            self.scripts[self.script] += data
        else:
            self.text.append(data)
