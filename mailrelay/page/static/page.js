// Live updates and shortcuts of the page. Every form works without this script, too.
//
//   data-live="ADDRESS"   of the body: ADDRESS gives a mark. When the mark changes, the page is loaded again, and the content of
//                         each element with data-fresh is replaced by the new one
//   data-fills="ID"       of a button: puts its data-value into the field ID instead of sending the form
//   data-selects-all      of a checkbox: selects all messages on this page
"use strict";

// Milliseconds between two requests for the mark, at least.
const PAUSE = 1500;
let mark = null;

function enableSelectAll(root) {
  for (const box of root.querySelectorAll("[data-selects-all]")) {
    box.closest("label").hidden = false;
    box.addEventListener("change", () => {
      for (const one of document.querySelectorAll('input[name="id"]')) one.checked = box.checked;
    });
  }
}

// Shows the new version of the page; keeps the selection, the open details and the focus.
function refresh(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const selected = new Set([...document.querySelectorAll('input[name="id"]:checked')].map((one) => one.value));
  const open = new Set([...document.querySelectorAll("details[open][id]")].map((one) => one.id));
  const focused = document.activeElement;
  const focusedSelector = focused && (focused.id ? `#${CSS.escape(focused.id)}` :
    focused.value !== undefined && focused.name ? `[name="${focused.name}"][value="${CSS.escape(focused.value)}"]` : "");
  for (const old of document.querySelectorAll("[data-fresh]")) {
    // Not `old.id`: in a form with a field named "id", that is the field.
    const update = fresh.getElementById(old.getAttribute("id"));
    if (!update || update.innerHTML === old.innerHTML) continue;
    for (const one of update.querySelectorAll('input[name="id"]')) one.checked = selected.has(one.value);
    for (const one of update.querySelectorAll("details[id]")) one.open = open.has(one.id);
    old.className = update.className;
    old.replaceChildren(...update.childNodes);
    enableSelectAll(old);
    if (focusedSelector && !document.contains(focused)) old.querySelector(focusedSelector)?.focus();
  }
  document.title = fresh.title;
}

// Asks for the mark, if the tab is visible, and refreshes the page if the mark has changed.
async function checkMark(address) {
  if (document.visibilityState !== "visible") return;
  const answer = await fetch(address, {headers: {accept: "application/json"}});
  if (!answer.ok) return;
  const found = (await answer.json()).mark;
  if (mark !== null && found !== mark) {
    const page = await fetch(location.href);
    if (page.ok) refresh(await page.text());
  }
  mark = found;
}

// Until a request fails: then `mailrelay web` has ended.
async function watch(address) {
  for (;;) {
    const began = performance.now();
    try {
      await checkMark(address);
      document.getElementById("ended").hidden = true;
    } catch {
      document.getElementById("ended").hidden = false;
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.max(PAUSE, 4 * (performance.now() - began))));
  }
}

for (const button of document.querySelectorAll("[data-fills]")) {
  button.addEventListener("click", (event) => {
    event.preventDefault();
    const field = document.getElementById(button.dataset.fills);
    field.value = button.dataset.value;
    field.focus();
    button.closest("p").hidden = true;
  });
}
enableSelectAll(document);
if (document.body.dataset.live) watch(document.body.dataset.live);
