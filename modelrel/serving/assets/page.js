"use strict";
const field = () => document.getElementById("key"); // there where the server wants a key
const opened = () => (field()?.value ? { authorization: "Bearer " + field().value } : {});
const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

function ready(form) {
  const { path, example } = form.dataset;
  const [body, send, said, answer, copy, curl] = ["textarea", "button", "output", ".answer", ".copy", ".curl"].map(
    (name) => form.querySelector(name));
  const url = location.origin + path;
  const shell = () => {
    const start = "curl -s " + quoted(url) + " -H 'Content-Type: application/json'" +
      (field() ? ' -H "Authorization: Bearer $KEY"' : "");
    curl.textContent = example
      ? "curl -s " + quoted(location.origin + example) + (field() ? ' -H "Authorization: Bearer $KEY"' : "") +
        " |\n " + start + " -d @-"
      : start + " \\\n -d " + quoted(body.value);
  };
  const fill = async () => {
    if (example && !body.value) body.value = await (await fetch(example, { headers: opened() })).text();
  };
  const sent = async () => {
    const started = performance.now();
    const headers = { "content-type": "application/json", ...opened() };
    const reply = await fetch(url, { method: "POST", headers, body: body.value });
    const text = await reply.text();
    said.textContent = `${reply.status} ${reply.statusText} in ${(performance.now() - started).toFixed(1)} ms`;
    said.className = reply.ok ? "good" : "bad";
    answer.textContent = text.length > 2e5 ? text.slice(0, 2e5) + "…" : text;
    answer.hidden = false;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send.disabled = true;
    said.textContent = "";
    fill().then(sent).catch((error) => {
      said.textContent = "no answer: " + error.message;
      said.className = "bad";
    }).finally(() => { send.disabled = false; });
  });
  body.addEventListener("input", shell);
  copy.addEventListener("click", () => navigator.clipboard.writeText(curl.textContent)
    .then(() => { copy.textContent = "Copied"; }, () => getSelection().selectAllChildren(curl)));
  send.disabled = copy.disabled = false;
  shell();
}

function unlock(form) {
  const said = form.querySelector("output");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    const reply = await fetch("/", { headers: { accept: "text/html", ...opened() } });
    if (!reply.ok) { said.textContent = "This is not the key."; said.className = "bad"; return; }
    const other = new DOMParser().parseFromString(await reply.text(), "text/html"), { value } = field();
    document.title = other.title;
    document.body.replaceWith(other.body); // its script does not run again; this one goes on
    field().value = value;
    start();
  });
  form.querySelector("button").disabled = false;
}

function start() {
  for (const form of document.forms) form.id === "unlock" ? unlock(form) : ready(form);
}

start();
