// What scrolls sideways can be reached and moved by the keyboard.
const BOXES =
  "pre, div.math, .table-wrapper, .cell_output, .cell_output .output, article p:has(> img)";

function reachable() {
  for (const box of document.querySelectorAll(BOXES)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

addEventListener("load", reachable);
addEventListener("resize", reachable);
document.addEventListener("toggle", reachable, true); // a <details> that opens
