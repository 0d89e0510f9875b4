"""Charts as inline SVG: lines, intervals, dots by row, points. All pure: numbers and names in, escaped markup out.

Own code and not a chart library: a library inlined (Plotly: 4.6 MB) would weigh more than everything else on the page together, and would
not follow the reader's light or dark setting, as these do through the classes and variables of `page.css`.
"""

import math
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 300  # of a chart's own coordinates; the page scales it to its column
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 46
ROW = 44  # height of a row of intervals or dots
COLOURS = 8  # --c0 … --c7 of page.css
WIDEST_LABEL = 24  # characters


@dataclass
class Series:
    """One line or group of marks.

    Args:
        name (str); colour (int): index of the model; points (list of (x, y)); tips (list of str, optional): shown on hover.
        marks (list of int, optional): points that get a dot; band (list of (x, low, high)): shaded.
        joined (bool): by a line; open (bool): dots are rings.
    """

    name: str
    colour: int
    points: list
    tips: list = None
    marks: list = None
    band: list = field(default_factory=list)
    joined: bool = True
    open: bool = False


def tag(name, content="", **attributes):
    """One SVG element; everything in it is escaped unless it is Markup. Keywords: `_` stands for `-`, a last `_` is dropped."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    given = Markup("").join(Markup(' {}="{}"').format(key, _short(value)) for key, value in named.items())
    return Markup("<{0}{1}>{2}</{0}>").format(name, given, content)


def lines(series, x_label, y_label, log_x=False):
    """Line chart; series without a point are left out. Empty markup where nothing is left."""
    series = [one for one in series if one.points]
    if not series:
        return Markup("")
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points] + [y for one in series for _, low, high in one.band for y in (low, high)]
    x, y = Axis(xs, LEFT, WIDTH - RIGHT, log=log_x, whole=all(float(value).is_integer() for value in xs)), Axis(ys, HEIGHT - BOTTOM, TOP, margin=0.04)
    parts = [_frame(x, y, x_label, y_label)]
    for one in series:
        if one.band:
            edge = [f"{x(at):.1f},{y(low):.1f}" for at, low, _ in one.band] + [f"{x(at):.1f},{y(high):.1f}" for at, _, high in reversed(one.band)]
            parts.append(tag("polygon", points=" ".join(edge), class_=f"band {_colour(one.colour)}"))
    for one in series:
        if one.joined:
            path = "M" + "L".join(f"{x(at):.1f},{y(value):.1f}" for at, value in one.points)
            parts.append(tag("path", d=path, class_=f"line {_colour(one.colour)}"))
        shown = set(range(len(one.points)) if one.marks is None else one.marks)
        for index, (at, value) in enumerate(one.points):
            tip = one.tips[index] if one.tips else f"{one.name}: {_number(value)}"
            kind = "dot" if index in shown else "ghost"  # a ghost is seen only on hover
            radius = 7 if kind == "ghost" else 3.5 if one.joined else 5
            parts.append(tag("circle", cx=x(at), cy=y(value), r=radius, class_=f"{kind} {'open ' if one.open else ''}{_colour(one.colour)}", data_tip=tip))
    return _svg(parts, f"{y_label} by {x_label}")


def intervals(rows, x_label):
    """Differences with their intervals around a line at zero.

    Args:
        rows (list of tuple): label, note, colour, mean, low, high, certain (bool, filled), tip.
    """
    if not rows:
        return Markup("")
    left = _label_room(text for row in rows for text in row[:2])
    height = TOP + BOTTOM + ROW * len(rows)
    x = Axis([0, *(value for row in rows for value in row[3:6])], left, WIDTH - RIGHT, margin=0.04)
    parts = [_x_axis(x, height, x_label, left), tag("line", x1=x(0), x2=x(0), y1=TOP, y2=height - BOTTOM, class_="zero")]
    for index, (label, note, colour, mean, low, high, certain, tip) in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        parts += [
            _row_label(label, note, left, y), tag("line", x1=x(low), x2=x(high), y1=y, y2=y, class_=f"bar {_colour(colour)}"),
            tag("circle", cx=x(mean), cy=y, r=6, class_=f"dot {'' if certain else 'open '}{_colour(colour)}", data_tip=tip),
        ]
    return _svg(parts, x_label, height)


def dots(rows, x_label, from_zero=True):
    """One row for each group, one dot for each model in it.

    Args:
        rows (list of tuple): label, note, list of (colour, value, tip). from_zero (bool): whether the axis begins at 0.
    """
    if not rows:
        return Markup("")
    left = _label_room(text for row in rows for text in row[:2])
    height = TOP + BOTTOM + ROW * len(rows)
    x = Axis([*([0] if from_zero else []), *(value for row in rows for _, value, _ in row[2])], left, WIDTH - RIGHT, margin=0 if from_zero else 0.04)
    parts = [_x_axis(x, height, x_label, left)]
    for index, (label, note, values) in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        numbers = [value for _, value, _ in values]
        parts += [
            _row_label(label, note, left, y),
            tag("line", x1=left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"),
            tag("line", x1=x(min(numbers)), x2=x(max(numbers)), y1=y, y2=y, class_="span"),
            *(tag("circle", cx=x(value), cy=y, r=6, class_=f"dot {_colour(colour)}", data_tip=tip) for colour, value, tip in reversed(values)),
        ]
    return _svg(parts, x_label, height)


def scatter(points, x_label, y_label, log_x=False):
    """Named points.

    Args:
        points (list of tuple): name, colour, x, y, spread of y or None, tip.
    """
    if not points:
        return Markup("")
    x = Axis([point[2] for point in points], LEFT, WIDTH - RIGHT, log=log_x, margin=0.12)
    ys = [value for point in points for value in (point[3] - (point[4] or 0), point[3] + (point[4] or 0))]
    y = Axis(ys, HEIGHT - BOTTOM, TOP, margin=0.1)
    parts, taken = [_frame(x, y, x_label, y_label)], [(x(point[2]) - 8, y(point[3]) - 8, x(point[2]) + 8, y(point[3]) + 8) for point in points]
    for name, colour, at, value, spread, tip in points:
        if spread:
            parts.append(tag("line", x1=x(at), x2=x(at), y1=y(value - spread), y2=y(value + spread), class_=f"bar thin {_colour(colour)}"))
        parts.append(tag("circle", cx=x(at), cy=y(value), r=7, class_=f"dot {_colour(colour)}", data_tip=tip))
        left, middle = _free_place(x(at), y(value), 7.2 * len(_cut(name)), taken)
        side = {"x": x(at) + 12, "text_anchor": "start"} if left > x(at) else {"x": x(at) - 12, "text_anchor": "end"}  # widths are guesses: stay near
        if abs(middle - y(value)) > 12:  # no room beside the dot
            parts.insert(1, tag("line", x1=x(at), y1=y(value), x2=side["x"], y2=middle, class_="leader"))
        parts.append(tag("text", _cut(name), y=middle, class_="name", dominant_baseline="central", **side))
    return _svg(parts, f"{y_label} against {x_label}")


def _free_place(x, y, width, taken):
    """Left end and middle of a name beside the point (x, y): the nearest place free of the boxes in `taken`, to which it is added."""
    tries = [(left, y + step * sign) for step in range(0, 120, 8) for sign in (1, -1) for left in (x + 12, x - 12 - width)]
    inside = [(left, middle) for left, middle in tries if left >= LEFT and left + width <= WIDTH and TOP <= middle <= HEIGHT - BOTTOM] or tries[:1]

    def is_free(place):
        left, middle = place
        return not any(left < other[2] and left + width > other[0] and middle - 8 < other[3] and middle + 8 > other[1] for other in taken)

    left, middle = next(filter(is_free, inside), inside[0])
    taken.append((left, middle - 8, left + width, middle + 8))
    return round(left, 1), round(middle, 1)


def cloud(points, lines=(), size=460):
    """Points without axes.

    Args:
        points (list of tuple): x, y in 0…1, attributes (dict); lines (list of tuple): x1, y1, x2, y2 in 0…1, class.
    """
    at = lambda value: round(10 + (size - 20) * float(value), 1)  # noqa: E731  (one use, two lines)
    parts = [tag("line", x1=at(a), y1=at(1 - b), x2=at(c), y2=at(1 - d), class_=kind) for a, b, c, d, kind in lines]
    parts += [tag("circle", cx=at(a), cy=at(1 - b), **{"r": 3, **attributes}) for a, b, attributes in points]
    return _svg(parts, "points in two dimensions", size, size)


class Axis:
    """Values to coordinates, with ticks at round values.

    Args:
        values (list of float); start, end (float): coordinates; log (bool); whole (bool): ticks at whole numbers only; margin (float): share of the range.
    """

    def __init__(self, values, start, end, log=False, whole=False, margin=0.0):
        self.start, self.end, self.log = start, end, log and min(values) > 0
        values = [self._inner(value) for value in values]
        low, high = min(values), max(values)
        room = (high - low) * margin if high > low else abs(high) * 0.1 or 0.5
        self.low, self.high = low - room, high + room
        self.ticks = self._log_ticks() if self.log else round_ticks(self.low, self.high, whole)
        self.digits = 0 if self.log or len(self.ticks) < 2 else max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))

    def __call__(self, value):
        return round(self.start + (self._inner(value) - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def label(self, tick):
        """A tick's text."""
        return f"{tick:g}" if self.log and tick < 1 else f"{tick:,.{self.digits}f}"

    def _inner(self, value):
        return math.log10(value) if self.log else float(value)

    def _log_ticks(self):
        every = [step * 10.0**power for power in range(math.floor(self.low), math.ceil(self.high) + 1) for step in (1, 2, 5)]
        inside = [tick for tick in every if self.low <= math.log10(tick) <= self.high]
        return inside if len(inside) <= 6 else [tick for tick in inside if math.log10(tick).is_integer()]


def round_ticks(low, high, whole=False, most=6):
    """Round values between low and high, about `most`, at most 1.5 times as many."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.7 * raw)
    step = max(1.0, step) if whole else step
    return [round(index * step, 12) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _frame(x, y, x_label, y_label):
    parts = [_x_axis(x, HEIGHT, x_label, LEFT)]
    for tick in y.ticks:
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(tick), y2=y(tick), class_="grid"))
        parts.append(tag("text", y.label(tick), x=LEFT - 7, y=y(tick), class_="tick", text_anchor="end", dominant_baseline="central"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(tag("text", y_label, x=13, y=middle, class_="axis", text_anchor="middle", transform=f"rotate(-90 13 {middle})"))
    return Markup("").join(parts)


def _x_axis(x, height, label, left):
    parts = [tag("line", x1=left, x2=WIDTH - RIGHT, y1=height - BOTTOM, y2=height - BOTTOM, class_="base")]
    for tick in x.ticks:
        parts.append(tag("line", x1=x(tick), x2=x(tick), y1=TOP, y2=height - BOTTOM, class_="grid"))
        parts.append(tag("text", x.label(tick), x=x(tick), y=height - BOTTOM + 16, class_="tick", text_anchor="middle"))
    parts.append(tag("text", label, x=(left + WIDTH - RIGHT) / 2, y=height - 8, class_="axis", text_anchor="middle"))
    return Markup("").join(parts)


def _svg(parts, title, height=HEIGHT, width=WIDTH):
    return tag("svg", Markup("").join(parts), viewBox=f"0 0 {width} {height}", role="img", aria_label=title, class_="chart")


def _row_label(label, note, left, y):
    attributes = {"x": left - 10, "text_anchor": "end", "dominant_baseline": "central"}
    return tag("text", _cut(label), y=y - 8, class_="row", **attributes) + tag("text", _cut(note), y=y + 9, class_="tick", **attributes)


def _label_room(labels):
    return 24 + 6.6 * min(WIDEST_LABEL, max((len(str(label)) for label in labels), default=0))


def _colour(index):
    return f"m{index % COLOURS}" if index < COLOURS else f"m{index % COLOURS} second"


def _cut(text, most=WIDEST_LABEL):
    return text if len(text) <= most else text[: most - 1] + "…"


def _short(value):
    return f"{value:g}" if isinstance(value, float) else escape(value)


def _number(value):
    return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"
