"""Pictures to play with: sliders beside them in a live notebook, the picture alone elsewhere.

    play(draw, angle=(0, 180, 60))

Stored notebooks hold the picture that the first values give, and no widget. Whoever runs the
handbook's own notebooks sets MTL_STATIC, so that nothing but that picture is drawn.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any


def play(draw: Callable[..., None], **choices: tuple) -> None:
    """Draw a picture; where the notebook is live, again for every value that the reader chooses.

    Args:
        draw: draws with `plt` and ends in `plt.show()`; takes one keyword for each choice.
        choices: for each keyword a slider (low, high, start), which moves in whole numbers if all
            three are; or the texts to choose from, the first one to start with.
    """
    if not _is_live():
        draw(**{name: _start(choice) for name, choice in choices.items()})
        return
    import ipywidgets
    from IPython.display import display

    controls = {name: _control(name, choice) for name, choice in choices.items()}
    picture = ipywidgets.interactive_output(draw, controls)
    display(ipywidgets.VBox([*controls.values(), picture]))


def _is_live() -> bool:
    """Whether widgets can be shown: ipywidgets is there, and a kernel for them to talk to."""
    if os.environ.get("MTL_STATIC") or not find_spec("ipywidgets") or not find_spec("IPython"):
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def _start(choice: tuple) -> Any:
    return choice[0] if isinstance(choice[0], str) else choice[2]


def _control(name: str, choice: tuple) -> Any:
    """A slider, or a list to choose from, with the first value set."""
    import ipywidgets

    look = {"description": name.replace("_", " "), "style": {"description_width": "8em"}}
    if isinstance(choice[0], str):
        return ipywidgets.Dropdown(options=choice, value=choice[0], **look)
    low, high, start = choice
    # The picture is drawn once the slider is let go: drawing takes longer than moving.
    look |= {"min": low, "max": high, "value": start, "continuous_update": False}
    if all(isinstance(number, int) for number in choice):
        return ipywidgets.IntSlider(**look)
    return ipywidgets.FloatSlider(step=(high - low) / 100, readout_format=".3g", **look)
