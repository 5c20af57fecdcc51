"use strict";
(() => {
  const by = (id) => document.getElementById(id);
  const items = Array.from(document.querySelectorAll("details[data-topic]"));
  const inputs = ["topic", "kind", "cause", "class", "text"].map(by);
  if (inputs.some((input) => !input)) return;
  const [topic, kind, cause, klass, text] = inputs;
  const apply = () => {
    const words = text.value.toLowerCase();
    let shown = 0;
    for (const item of items) {
      const data = item.dataset;
      const fits =
        (!topic.value || data.topic === topic.value) &&
        (!kind.value || data.kind === kind.value) &&
        (!cause.value || data.cause === cause.value) &&
        (!klass.value || data.class === klass.value) &&
        (!words || item.textContent.toLowerCase().includes(words));
      item.hidden = !fits;
      if (fits) shown += 1;
    }
    by("shown").textContent = `${shown} of ${items.length} differences on this page`;
  };
  inputs.forEach((input) => input.addEventListener("input", apply));
  document.querySelectorAll("button.cause").forEach((button) =>
    button.addEventListener("click", () => {
      inputs.forEach((input) => { input.value = ""; });
      if (button.dataset.cause) cause.value = button.dataset.cause;
      if (button.dataset.topic) topic.value = button.dataset.topic;
      apply();
      by("differences").scrollIntoView({ behavior: "smooth" });
    }));
  apply();
})();
