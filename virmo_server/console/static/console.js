// What HTML alone cannot do: questions before dangerous buttons, problems beside the form that met them, notices, uploads
// with progress, the theme. Shows text only by textContent: nothing from the server becomes markup here.
"use strict";
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const body = document.body;

  // ---- notices

  function notice(text, { link = null, bad = false } = {}) {
    const line = document.createElement("div");
    line.className = bad ? "notice bad" : "notice";
    const words = link ? document.createElement("a") : document.createElement("span");
    words.textContent = text;
    if (link) words.href = link;
    const close = document.createElement("button");
    close.className = "quiet";
    close.type = "button";
    close.textContent = "×";
    close.setAttribute("aria-label", "Dismiss");
    close.addEventListener("click", () => line.remove());
    line.append(words, close);
    $("#notices").append(line);
    if (!bad) setTimeout(() => line.remove(), 12000);
  }

  body.addEventListener("notice", (event) => notice(event.detail.text, { link: event.detail.link }));

  // ---- problems, where they were met

  function placeOf(element) {
    // What is live is replaced in a moment, and a sentence in it would be gone.
    return element.matches("form") && !element.closest("#live") ? $(".problem", element) : null;
  }

  function showProblem(element, text) {
    const place = placeOf(element);
    if (place) place.textContent = text;
    else notice(text, { bad: true });
  }

  // Forms under way. What is live waits for them: a form that is gone could not tell of its answer.
  let posting = 0;

  body.addEventListener("htmx:beforeRequest", (event) => {
    const element = event.detail.elt;
    if (element.dataset.live && isBusy(element)) return event.preventDefault();
    if (event.detail.requestConfig.verb !== "get") posting += 1;
    const place = placeOf(element);
    if (place) place.textContent = "";
  });
  body.addEventListener("htmx:responseError", (event) => {
    const { elt, xhr } = event.detail;
    if (elt.dataset.live) return markStale(elt, xhr.responseText || `The server answered ${xhr.status}.`);
    showProblem(elt, xhr.responseText || `The server answered ${xhr.status}.`);
  });
  for (const name of ["htmx:sendError", "htmx:timeout"])
    body.addEventListener(name, (event) => {
      const words = "The server cannot be reached at the moment.";
      if (event.detail.elt.dataset.live) markStale(event.detail.elt, words);
      else showProblem(event.detail.elt, words);
    });
  body.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.requestConfig.verb === "get") return;
    posting -= 1;
    lookSoon();
    if (event.detail.successful && event.detail.elt.matches("form[data-reset]")) event.detail.elt.reset();
  });

  // ---- the live part of a page

  function isBusy(element) {
    const active = document.activeElement;
    const isTyping = element.contains(active) && active.matches("input, textarea, select");
    return $("#ask").open || isTyping || element.dataset.dirty || posting > 0 || document.hidden;
  }

  function markStale(element, words) {
    let line = $(".stale", element);
    if (!line) {
      line = document.createElement("p");
      line.className = "stale warning";
      line.setAttribute("role", "status");
      element.prepend(line);
    }
    line.textContent = `${words} What follows may be old.`;
  }

  body.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.elt.dataset.live && isBusy(event.detail.elt)) event.detail.shouldSwap = false;
  });

  // Server-sent events say when to look again. While they do not come, look every few seconds. A hidden page listens to
  // nothing: browsers allow few connections to a server.
  const lookAgain = () => body.dispatchEvent(new Event("live"));
  const pace = Number(body.dataset.pace);
  const fallback = 4000;
  let events = null;
  let due = null;
  let lastLook = 0;

  function lookSoon() {
    if (due !== null) return;
    const wait = Math.max(50, lastLook + pace - performance.now());
    due = setTimeout(() => {
      due = null;
      lastLook = performance.now();
      lookAgain();
    }, wait);
  }

  function follow() {
    const device = body.dataset.device;
    events = new EventSource(body.dataset.events + (device ? `?device=${encodeURIComponent(device)}` : ""));
    for (const kind of ["device", "vm", "image", "order", "alert", "reset"]) events.addEventListener(kind, lookSoon);
    events.addEventListener("open", lookSoon); // what happened since the page was made, or while nobody listened
  }

  if ($("#live")) {
    follow();
    setInterval(() => events && events.readyState !== EventSource.OPEN && lookAgain(), fallback);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden && events) {
        events.close();
        events = null;
      } else if (!document.hidden && !events) {
        follow();
        lookAgain();
      }
    });
    window.addEventListener("pagehide", () => events && events.close());
  }

  // ---- questions

  const dialog = $("#ask");
  let proceed = null;
  body.addEventListener("htmx:confirm", (event) => {
    const { ask, yes, danger } = event.detail.elt.dataset;
    if (!ask) return;
    event.preventDefault();
    $("#ask-question").textContent = ask;
    $("#ask-yes").textContent = yes || "Yes";
    $("#ask-yes").className = danger ? "danger" : "";
    dialog.returnValue = "no";
    proceed = () => event.detail.issueRequest(true);
    dialog.showModal();
  });
  dialog.addEventListener("close", () => {
    if (dialog.open) return; // of the question before: this event comes late
    if (dialog.returnValue === "yes") proceed();
    else lookSoon();
  });

  // ---- forms that say something of themselves

  body.addEventListener("htmx:configRequest", (event) => {
    const form = event.detail.elt;
    if (form.matches("form[data-join]")) {
      const child = $("[data-child]", form).value.trim();
      event.detail.parameters.uri = `${$("[data-parent]", form).dataset.parent}/${child}`;
    }
  });
  body.addEventListener("change", (event) => {
    const select = event.target;
    if (select.dataset.names) $(`#${select.dataset.names}`).value = select.selectedOptions[0].dataset.name;
    if (select.matches("#group-kind, #ask-kind")) showFields(select);
    if (select.id === "upload-file") suggest(select.files[0]);
  });

  function showFields(select) {
    for (const field of select.form.querySelectorAll("div[data-for]")) {
      const fits = field.dataset.for.split(" ").includes(select.value);
      field.hidden = !fits;
      for (const input of field.querySelectorAll("input, select, textarea")) input.disabled = !fits;
    }
  }
  for (const kind of document.querySelectorAll("#group-kind, #ask-kind")) showFields(kind);

  body.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.path) {
      event.preventDefault();
      const name = encodeURIComponent($("[data-segment]", form).value.trim());
      window.htmx.ajax("POST", `${form.dataset.path}/${name}${form.dataset.end || ""}`, { source: form, swap: "none" });
    }
    if (form.id === "upload") {
      event.preventDefault();
      upload(form);
    }
  });

  // ---- upload

  function suggest(file) {
    if (!file) return;
    const name = file.name.toLowerCase();
    const plain = file.name.replace(/(\.(tar|qcow2|raw|img|tgz|gz|xz|zst|dd))+$/i, "");
    if (!$("#upload-name").value) $("#upload-name").value = plain.replace(/[^A-Za-z0-9._-]+/g, "-").slice(0, 64);
    const fits = (option) => option.dataset.ends.split(" ").some((end) => end && name.endsWith(end));
    const options = [...$("#upload-type").options];
    $("#upload-type").value = (options.find(fits) || options[options.length - 1]).value;
  }

  function size(octets) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (octets >= 1024 && unit < units.length - 1) [octets, unit] = [octets / 1024, unit + 1];
    return `${octets.toFixed(unit ? 1 : 0)} ${units[unit]}`;
  }

  function upload(form) {
    const file = $("#upload-file").files[0];
    const problem = $(".problem", form);
    const [button, stop] = [$("button:not([type])", form), $("#upload-stop")];
    const [box, bar, words] = [$(".progress", form), $("#upload-progress"), $("#upload-words")];
    const fileName = file.name.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(-100) || "image";
    const query = new URLSearchParams({
      name: $("#upload-name").value.trim(),
      file_name: fileName,
      media_type: $("#upload-type").value,
    });
    const request = new XMLHttpRequest();
    const began = performance.now();
    request.open("POST", `${form.dataset.url}?${query}`);
    request.setRequestHeader("X-CSRF-Token", body.dataset.csrf);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => {
      const speed = event.loaded / ((performance.now() - began) / 1000);
      bar.value = event.loaded / file.size;
      words.textContent = `${size(event.loaded)} of ${size(file.size)}, ${size(speed)}/s`;
    });
    const end = (text) => {
      box.hidden = stop.hidden = true;
      button.disabled = false;
      problem.textContent = text;
    };
    request.addEventListener("load", () => {
      if (request.status !== 201) return end(request.responseText || `The server answered ${request.status}.`);
      end("");
      form.reset();
      notice(`${JSON.parse(request.responseText).name} is in the library.`);
      body.dispatchEvent(new Event("live"));
    });
    request.addEventListener("error", () => end("The upload broke off: the server cannot be reached."));
    request.addEventListener("abort", () => end("The upload was stopped; nothing of it was kept."));
    stop.onclick = () => request.abort();
    problem.textContent = words.textContent = "";
    bar.value = 0;
    box.hidden = stop.hidden = false;
    button.disabled = true;
    request.send(file);
  }

  // ---- theme

  const theme = $("#theme");
  const themes = ["auto", "light", "dark"];
  if (theme) {
    const show = (name) => {
      theme.textContent = `Theme: ${name}`;
      if (name === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = name;
    };
    const chosen = () => (themes.includes(localStorage.getItem("virmo-theme")) ? localStorage.getItem("virmo-theme") : "auto");
    show(chosen());
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const next = themes[(themes.indexOf(chosen()) + 1) % themes.length];
      localStorage.setItem("virmo-theme", next);
      show(next);
    });
  }
})();
