"use strict";
// Live updates, times in the reader's zone, the player, and dropped files. All of it is optional: without
// this script the pages show the same and every action is a form.
(() => {
  const main = () => document.querySelector("main");
  const root = document.documentElement.dataset.root || "";

  // Times --------------------------------------------------------------------------------------
  const units = [["day", 86400], ["hour", 3600], ["minute", 60]];
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  function showTimes() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const seconds = (moment - Date.now()) / 1000;
      const [unit, size] = units.find(([, each]) => Math.abs(seconds) >= each) || ["second", 1];
      time.title = absolute.format(moment);
      time.textContent = time.dataset.form === "full" ? absolute.format(moment) : relative.format(Math.round(seconds / size), unit);
    }
  }

  // Live update --------------------------------------------------------------------------------
  const sent = new WeakMap(); // part of the page -> what the daemon sent for it, before its times are put into words
  for (const part of document.querySelectorAll("[data-live]")) sent.set(part, part.innerHTML);
  showTimes();
  setInterval(showTimes, 15000);
  let version = document.documentElement.dataset.version;
  const changing = "[data-live]:not([data-live=ended])";
  // The session has ended, perhaps in another tab: the login leads back to this page.
  const leaveIfRefused = (answer) => { if (answer.status === 401) location.reload(); };
  let busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href);
      leaveIfRefused(answer);
      if (answer.ok && !answer.redirected) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        version = fresh.documentElement.dataset.version;
        // The file has ended and may have a transcript now; somebody who listens is not interrupted.
        const hasEnded = fresh.querySelector("[data-live=ended]") && document.querySelector(changing);
        if (hasEnded && document.querySelector("audio")?.paused !== false) location.reload();
        for (const part of fresh.querySelectorAll("[data-live]")) {
          const old = document.getElementById(part.id);
          if (old && sent.get(old) !== part.innerHTML) replace(old, part);
        }
        showTimes();
        follow();
      }
    } catch { /* the daemon restarts; the event source tells when it is back */ }
    busy = false;
    if (again) { again = false; setTimeout(refresh, 300); }
  }
  // A link or button keeps the focus; while a field has it, or text of it is selected, a part stays as it is.
  const addressOf = (element) => element.href || element.form?.action;
  const selection = document.getSelection();
  let isSelected = false;
  document.addEventListener("selectionchange", () => {
    if (!isSelected || !selection.isCollapsed) return;
    isSelected = false;
    refresh();
  });
  function replace(old, part) {
    if (!selection.isCollapsed && selection.containsNode(old, true)) { isSelected = true; return; }
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    if (focused?.matches("input, select, textarea")) return;
    const wanted = focused && addressOf(focused);
    sent.set(part, part.innerHTML);
    old.replaceWith(part);
    if (wanted) [...part.querySelectorAll("a, button")].find((each) => addressOf(each) === wanted)?.focus({ preventScroll: true });
  }
  // Browsers allow six connections to a site, so that only pages that are seen and can change have a stream.
  let source = null;
  const showLive = (isLive) => document.querySelector(".dot")?.classList.toggle("live", isLive);
  function follow() {
    const changes = !document.hidden && document.querySelector(changing);
    if (!changes) {
      source?.close();
      source = null;
    } else if (!source || source.readyState === EventSource.CLOSED) {
      source = new EventSource(`${root}/events?since=${version}`);
      source.addEventListener("change", refresh);
      source.addEventListener("open", () => showLive(true));
      source.addEventListener("error", (event) => {
        showLive(false);
        // The browser tries again by itself, except after an answer that is no stream: a proxy's while the
        // daemon starts again, or that too many pages are open.
        if (event.target.readyState !== EventSource.CLOSED) return;
        setTimeout(follow, 5000);
        fetch(location.href, { method: "HEAD" }).then(leaveIfRefused).catch(() => {});
      });
    }
    showLive(source?.readyState === EventSource.OPEN);
  }
  follow();
  const followAgain = () => { follow(); if (source) refresh(); };
  document.addEventListener("visibilitychange", followAgain);
  addEventListener("pageshow", (event) => { if (event.persisted) followAgain(); });
  addEventListener("pagehide", () => source?.close());

  // Login --------------------------------------------------------------------------------------
  // A link from another site comes without the session (SameSite=Strict); a request of our own has it.
  const next = document.querySelector("form input[name=next]");
  if (next) {
    const page = root + next.value;
    fetch(page, { method: "HEAD" }).then((answer) => { if (answer.ok) location.replace(page); }).catch(() => {});
  }

  // Player -------------------------------------------------------------------------------------
  const audio = document.querySelector("audio");
  if (audio) {
    const words = [...document.querySelectorAll(".w[data-start]")];
    const starts = words.map((word) => Number(word.dataset.start));
    let marked = null;
    const jump = (seconds) => { audio.currentTime = seconds; audio.play().catch(() => {}); };
    main().addEventListener("click", (event) => {
      const target = event.target.closest("[data-start]");
      if (target) jump(Number(target.dataset.start));
    });
    audio.addEventListener("timeupdate", () => {
      let low = 0, high = starts.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (starts[middle] <= audio.currentTime + 0.05) low = middle + 1; else high = middle;
      }
      const word = words[low - 1] || null;
      if (word === marked) return;
      marked?.classList.remove("now");
      word?.classList.add("now");
      marked = word;
    });
    const wanted = Number(new URLSearchParams(location.search).get("t"));
    if (wanted > 0 && Number.isFinite(wanted)) {
      const stand = () => { audio.currentTime = wanted; };
      if (audio.readyState >= 1) stand(); else audio.addEventListener("loadedmetadata", stand, { once: true });
      words[starts.findIndex((start) => start >= wanted - 0.05)]?.scrollIntoView({ block: "center" });
    }
  }

  // Drop ---------------------------------------------------------------------------------------
  const drop = document.querySelector("form.drop");
  if (drop) {
    const input = drop.querySelector("input[type=file]");
    const said = drop.querySelector("[role=status]");
    const progress = drop.querySelector("progress");
    const send = (file) => new Promise((resolve) => {
      const form = new FormData();
      form.append("file", file, file.name);
      const request = new XMLHttpRequest();
      request.upload.addEventListener("progress", (event) => {
        if (event.lengthComputable) { progress.hidden = false; progress.max = event.total; progress.value = event.loaded; }
      });
      request.addEventListener("loadend", () => resolve(request.status === 200 || request.status === 303 ? "" : request.responseText.trim() || "the connection broke"));
      request.open("POST", drop.action);
      request.setRequestHeader("Accept", "text/plain");
      request.send(form);
    });
    async function sendAll(chosen) {
      const files = [...chosen]; // the field's own list becomes empty with the field
      const refused = [];
      for (const [index, file] of files.entries()) {
        said.textContent = `Sending ${file.name} (${index + 1} of ${files.length})`;
        const trouble = await send(file);
        if (trouble) refused.push(trouble.startsWith(`${file.name}: `) ? trouble : `${file.name}: ${trouble}`);
      }
      progress.hidden = true;
      input.value = "";
      said.textContent = refused.length ? refused.join("; ") : `${files.length === 1 ? "The file is" : `${files.length} files are`} in the inbox.`;
      refresh();
    }
    drop.addEventListener("submit", (event) => { event.preventDefault(); if (input.files.length) sendAll(input.files); });
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("over");
      if (event.dataTransfer.files.length) sendAll(event.dataTransfer.files);
    });
  }
})();
