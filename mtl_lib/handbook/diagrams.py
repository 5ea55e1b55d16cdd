"""How data flows: through attention, the encoder, the heads, a joint step and pretraining.

Each function draws one diagram and returns its figure. Blue boxes have weights to learn, orange
ones compute without any, white ones are data. Solid arrows go forward, dashed ones carry gradients
back. The shades differ in grey too, and no meaning hangs on a colour alone.
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

DATA, LEARNED, FIXED, GROUP = "white", "#8fc3e6", "#fbe3bd", "#f1f3f5"
INK, GREY, BACK = "#1a1a1a", "#4d4d4d", "#a33c00"
Point = tuple[float, float]
Step = tuple[str, str]  # what stands in a box, and its colour


class _Sheet:
    """A sheet of paper, measured in inches from its upper left corner."""

    def __init__(self, width: float, height: float):
        self.figure = plt.figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.axis("off")

    def box(self, x, y, text: str, colour=DATA, width: float = 1.6, height: float = 0.46) -> None:
        """A box around a text, its centre at (x, y)."""
        self._rounded(x - width / 2, y - height / 2, width, height, colour, INK, front=True)
        self.text(x, y, text)

    def frame(self, x: float, y: float, width: float, height: float, title: str) -> None:
        """A shaded area behind others with a title, its upper left corner at (x, y)."""
        self._rounded(x, y, width, height, GROUP, GREY, front=False)
        self.text(x + 0.15, y + 0.24, title, align="left", weight="bold")

    def _rounded(self, x, y, width, height, colour, edge, front: bool) -> None:
        self.axes.add_patch(
            FancyBboxPatch(
                (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.07",
                facecolor=colour, edgecolor=edge, linewidth=1.1, zorder=3 if front else 0,
            )
        )  # fmt: skip

    def text(self, x: float, y: float, text: str, align: str = "center", **look) -> None:
        look = {"fontsize": 10.5, "color": INK, "linespacing": 1.3, "zorder": 5} | look
        self.axes.text(x, y, text, ha=align, va="center", **look)

    def note(self, x: float, y: float, text: str, align: str = "left", **look) -> None:
        """A shape or a remark beside a box or an arrow."""
        self.text(x, y, text, align, **{"color": GREY, "fontsize": 10} | look)

    def arrow(self, *points: Point, back: bool = False) -> None:
        """An arrow through the points; dashed if it carries gradients back."""
        colour, style = (BACK, (0, (4, 2))) if back else (INK, "-")
        xs, ys = zip(*points[:-1], strict=True)
        self.axes.plot(xs, ys, color=colour, linestyle=style, linewidth=1.3, zorder=2)
        head = {"arrowstyle": "-|>", "color": colour, "linestyle": style, "linewidth": 1.3}
        head |= {"shrinkA": 0, "shrinkB": 0, "mutation_scale": 12}
        self.axes.annotate("", xy=points[-1], xytext=points[-2], arrowprops=head, zorder=4)

    def column(self, x: float, ys: list[float], steps: list[Step], width: float = 1.6) -> None:
        """Boxes below each other at these heights, with arrows between them."""
        for y, (text, colour) in zip(ys, steps, strict=True):
            self.box(x, y, text, colour, width)
        for above, below in zip(ys, ys[1:], strict=False):
            self.arrow((x, above + 0.23), (x, below - 0.23))

    def legend(self, x: float, y: float) -> None:
        """What the shades mean, in a small column."""
        for colour, words in ((LEARNED, "weights to learn"), (FIXED, "no weights")):
            self.axes.add_patch(
                Rectangle((x, y - 0.07), 0.2, 0.14, facecolor=colour, edgecolor=INK, linewidth=0.8)
            )
            self.note(x + 0.28, y, words)
            y += 0.27


def attention() -> Figure:
    """Attention with its shapes, from a layer's input to what W_O gives."""
    sheet = _Sheet(9.0, 7.1)
    rows = [0.4, 1.25, 2.1, 2.95, 3.8, 4.65, 5.5, 6.35]
    lanes, wide = {"q": 2.5, "k": 4.2, "v": 5.9}, 4.9
    between, middle = (lanes["q"] + lanes["k"]) / 2, lanes["k"]
    for name, x in lanes.items():
        steps = [(f"$x\\, W_{name} + b_{name}$", LEARNED), (f"A heads of {name}", FIXED)]
        sheet.arrow((x, 0.63), (x, rows[1] - 0.23))
        sheet.column(x, rows[1:3], steps, width=1.5)
    sheet.box(middle, rows[0], "x: a vector for each word", width=wide)
    for name in "qk":
        sheet.arrow((lanes[name], rows[2] + 0.23), (lanes[name], rows[3] - 0.23))
    steps = [
        ("scores: $q \\cdot k\\, /\\, \\sqrt{D}$", FIXED),
        ("mask: padding gets no weight", FIXED),
        ("softmax over the keys; dropout", FIXED),
    ]
    sheet.column(between, rows[3:6], steps, width=3.2)
    sheet.arrow((between, rows[5] + 0.23), (between, rows[6] - 0.23))
    sheet.arrow((lanes["v"], rows[2] + 0.23), (lanes["v"], rows[6] - 0.23))
    steps = [
        ("weights times v: a weighted mean of words", FIXED),
        ("heads side by side again;  $W_O$ mixes them", LEARNED),
    ]
    sheet.column(middle, rows[6:], steps, width=wide)
    shapes = ["[B, L, H]", "[B, L, H]  three times", "[B, A, L, D]  three times"]
    shapes += ["[B, A, L, L]"] * 3 + ["[B, A, L, D]", "[B, L, H]"]
    for y, shape in zip(rows, shapes, strict=True):
        sheet.note(6.95, y, shape)
    names = {2: "split_heads", 3: "scores", 4: "mask_scores", 5: "attend", 6: "attend"}
    for row, name in names.items():
        sheet.note(0.12, rows[row], name, family="monospace")
    words = "B sentences · L words · A heads · D = H / A numbers a head"
    sheet.note(middle, 6.87, words, "center")
    sheet.legend(0.12, rows[0])
    return sheet.figure


def encoder() -> Figure:
    """BERT as a stack: its embeddings, one layer with both residual connections, the pooler."""
    sheet = _Sheet(9.0, 7.3)
    left, mid, right = 1.45, 4.3, 7.35
    rows = [0.95, 1.8, 2.65, 3.5, 4.35, 5.2, 6.35]
    sheet.text(left, 0.4, "BERT", weight="bold")
    steps = [
        ("token ids", DATA),
        ("Embeddings", LEARNED),
        ("Layer 1", LEARNED),
        ("Layer 2", LEARNED),
        ("...", GROUP),
        ("Layer N", LEARNED),
    ]
    sheet.column(left, rows[:6], steps, width=1.7)
    for y, shape in zip(rows[:5], ["[B, L]"] + ["[B, L, H]"] * 4, strict=True):
        sheet.note(left + 0.08, y + 0.42, shape)
    sheet.arrow((left, rows[5] + 0.23), (left, rows[6] - 0.23))
    sheet.box(left, rows[6], "words: [B, L, H]", width=1.9)
    sheet.legend(0.7, 6.85)

    sheet.frame(2.95, 0.15, 2.75, 3.35, "Embeddings")
    for y, text in zip([0.8, 1.35, 1.9], ["word", "position", "segment"], strict=True):
        sheet.box(mid - 0.35, y, text, LEARNED, width=1.4)
        sheet.arrow((mid + 0.35, y), (mid + 1.05, y), (mid + 1.05, 2.39))
    sheet.box(mid, 2.62, "sum, LayerNorm", LEARNED, width=2.45)
    sheet.arrow((mid, 2.85), (mid, 3.04))
    sheet.note(mid, 3.22, "dropout: [B, L, H]", "center")

    sheet.frame(2.95, 3.85, 2.75, 3.25, "Pooler")
    pooler = [("first word: [B, H]", DATA), ("dense H → H", LEARNED), ("tanh", FIXED)]
    sheet.column(mid, [4.6, 5.4, 6.2], pooler, width=2.1)
    sheet.arrow((mid, 6.43), (mid, 6.63))
    sheet.note(mid, 6.84, "sentence: [B, H]", "center")
    sheet.arrow((left + 0.95, rows[6]), (2.72, rows[6]), (2.72, 4.6), (mid - 1.05, 4.6))

    sheet.frame(5.95, 0.15, 2.9, 6.95, "One layer")
    ys = [0.85, 1.7, 2.35, 3.1, 4.0, 4.65, 5.3, 6.05]
    layer = [
        ("x: [B, L, H]", DATA),
        ("attention, $W_O$", LEARNED),
        ("dropout", FIXED),
        ("add, LayerNorm", LEARNED),
        ("dense H → 4H, GELU", LEARNED),
        ("dense 4H → H", LEARNED),
        ("dropout", FIXED),
        ("add, LayerNorm", LEARNED),
    ]
    x = right - 0.2
    sheet.column(x, ys, layer, width=2.0)
    for start, end in ((ys[0] + 0.42, ys[3]), (ys[3] + 0.45, ys[7])):
        sheet.arrow((x, start), (8.6, start), (8.6, end), (x + 1.0, end))
    sheet.arrow((x, ys[7] + 0.23), (x, 6.6))
    sheet.note(x, 6.82, "to the next layer", "center")
    return sheet.figure


def three_heads() -> Figure:
    """One encoder, three heads; of a pair each sentence goes through it by itself."""
    sheet = _Sheet(9.0, 6.9)
    lanes = {
        "Sentiment": (1.45, "u", "linear H → 5", "[B, 5] logits", "cross-entropy"),
        "Paraphrase": (4.4, "uv", "linear 2H → 1", "[B, 1] logits", "binary cross-entropy"),
        "Similarity": (7.4, "uv", "linear 2H → 1", "[B, 1]", "squared error"),
    }
    ys = [3.3, 4.1, 4.9, 5.8]
    sheet.box(4.5, 2.0, "one encoder, shared: the same weights for every sentence", LEARNED, 8.7)
    for name, (x, vectors, linear, shape, loss) in lanes.items():
        sheet.text(x, 0.27, name, weight="bold", fontsize=12)
        sides = [x] if vectors == "u" else [x - 0.7, x + 0.7]
        for number, (vector, side) in enumerate(zip(vectors, sides, strict=True), start=1):
            words = "sentence" if vectors == "u" else f"sentence {number}"
            sheet.box(side, 0.8, words, width=1.25)
            sheet.arrow((side, 1.03), (side, 1.77))
            sheet.note(side + 0.08, 1.4, "[B, L]")
            sheet.arrow((side, 2.23), (side, ys[0] - 0.23))
            sheet.note(side + 0.08, 2.65, f"{vector}  [B, H]")
        joined = "u" if vectors == "u" else "[u; v]: end to end"
        steps = [(joined, DATA), ("dropout", FIXED), (linear, LEARNED), (loss, FIXED)]
        sheet.column(x, ys, steps, width=2.1)
        sheet.note(x + 0.08, ys[0] + 0.4, "[B, H]" if vectors == "u" else "[B, 2H]")
        sheet.note(x + 0.08, ys[2] + 0.45, shape)
    sheet.legend(0.4, 6.4)
    return sheet.figure


def joint_step() -> Figure:
    """One step for three tasks: three gradients, kept apart, compared and put together."""
    sheet = _Sheet(9.0, 6.9)
    sheet.box(3.55, 1.5, "encoder,\nshared", LEARNED, width=2.2, height=2.6)
    tasks = {"sentiment": 0.65, "paraphrase": 1.5, "similarity": 2.35}
    gradients = [2.75, 3.55, 4.35]
    for number, (task, y) in enumerate(tasks.items(), start=1):
        sheet.box(1.15, y, f"batch: {task}", width=1.9)
        sheet.arrow((2.1, y), (2.45, y))
        for left, right in ((4.65, 5.1), (6.4, 6.85)):
            sheet.arrow((left, y - 0.1), (right, y - 0.1))
            sheet.arrow((right, y + 0.1), (left, y + 0.1), back=True)
        sheet.box(5.75, y, f"head {number}", LEARNED, width=1.3)
        sheet.box(7.5, y, f"loss {number}", FIXED, width=1.3)
        x = gradients[number - 1]
        sheet.arrow((x, 2.8), (x, 3.42), back=True)
        sheet.box(x, 3.65, f"$g_{number}$", width=0.66)
        sheet.arrow((x, 3.88), (x, 4.42))
    sheet.note(2.3, 3.1, "one backward pass a loss", "right", color=BACK)
    sheet.note(2.3, 3.65, "gradients of the encoder,\nkept apart", "right")

    signs = ["+−+", "−+−", "+−+"]
    for row, line in enumerate(signs):
        for column, sign in enumerate(line):
            x, y, shade = gradients[column], 4.62 + 0.4 * row, FIXED if sign == "−" else DATA
            corner = (x - 0.4, y - 0.2)
            sheet.axes.add_patch(Rectangle(corner, 0.8, 0.4, facecolor=shade, edgecolor=INK))
            sheet.text(x, y, sign, fontsize=12)
    sheet.note(2.2, 5.02, "Gram matrix: all $g_i \\cdot g_j$\n−: two tasks in conflict", "right")
    sheet.arrow((4.75, 5.02), (5.1, 5.02))
    sheet.box(5.8, 5.02, "$w_1, w_2, w_3$", FIXED, width=1.4)
    sheet.note(5.8, 5.48, "surgery, or another\nweighting", "center")
    sheet.arrow((6.5, 5.02), (6.85, 5.02))
    sheet.box(7.85, 5.02, "$w_1 g_1 + w_2 g_2 + w_3 g_3$", FIXED, width=2.0)
    sheet.arrow((4.68, 3.65), (7.85, 3.65), (7.85, 4.79))
    sheet.arrow((7.85, 5.25), (7.85, 6.17))
    sheet.box(7.85, 6.4, "AdamW", FIXED, width=2.0)
    sheet.arrow((6.85, 6.4), (4.75, 6.4))
    sheet.box(3.55, 6.4, "new shared weights", LEARNED, width=2.4)
    sheet.note(6.3, 3.1, "a head's gradient comes from its own loss", "center")
    sheet.legend(0.2, 6.27)
    return sheet.figure


def pretraining() -> Figure:
    """Both tasks of BERT's pretraining: words that were hidden, and whether B follows A."""
    sheet = _Sheet(9.0, 6.1)
    tokens = "[CLS] the dog [MASK] home [SEP] it was [MASK] [SEP]".split()
    xs = [0.55 + 0.877 * place for place in range(len(tokens))]
    for x, token in zip(xs, tokens, strict=True):
        sheet.box(x, 0.8, token, GROUP if token == "[MASK]" else DATA, width=0.8)
        sheet.arrow((x, 1.03), (x, 1.67))
    sheet.text((xs[1] + xs[4]) / 2, 0.3, "sentence A", weight="bold")
    sheet.text((xs[6] + xs[8]) / 2, 0.3, "sentence B", weight="bold")
    sheet.box(4.5, 1.9, "BERT", LEARNED, width=8.7)

    middle, ys = (xs[3] + xs[8]) / 2, [2.95, 3.8, 4.65]
    for x in (xs[0], xs[3], xs[8]):
        sheet.arrow((x, 2.13), (x, ys[0] - 0.23))
        sheet.note(x + 0.1, 2.42, "[H]")
    steps = [("Pooler", LEARNED), ("linear H → 2", LEARNED), ("cross-entropy", FIXED)]
    sheet.column(1.25, ys, steps, width=2.1)
    sheet.note(1.25, 5.1, "does B follow A?", "center")
    steps = [
        ("dense H → H, GELU, LayerNorm", LEARNED),
        ("times the word embeddings, transposed: H → V", LEARNED),
        ("cross-entropy with the hidden words", FIXED),
    ]
    sheet.column(middle, ys, steps, width=5.4)
    sheet.note(middle, 5.1, "which words were there?  ran, late", "center")
    words = "15 % of the words are chosen: of these 80 % become [MASK],\n"
    words += "10 % another word, and 10 % stay. No other word has a loss."
    sheet.note(middle, 5.65, words, "center")
    sheet.legend(0.3, 5.55)
    return sheet.figure
