// Eleventh Shelf: what every page shares: money, cards, the countdown, the cart.

const CART_KEY = "eleventh-shelf.cart";
const MAX_PER_LINE = 24;

const euro = new Intl.NumberFormat("en-IE", { style: "currency", currency: "EUR" });
export const money = (cents) => euro.format(cents / 100);

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Builds an element: el("a", { href: "/" }, "Home", child). Text is always text, never markup. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== false && child != null));
  return node;
}

const fetched = new Map();

/** Fetches JSON once a page. A failure is not remembered, so that the next call tries again. */
export function getJson(path) {
  if (!fetched.has(path)) {
    const promise = fetch(path).then((response) => {
      if (!response.ok) throw new Error(`${path}: HTTP ${response.status}`);
      return response.json();
    });
    promise.catch(() => fetched.delete(path));
    fetched.set(path, promise);
  }
  return fetched.get(path);
}

export const productUrl = (id) => `/product.html?id=${encodeURIComponent(id)}`;
export const imageUrl = (image) => `/img/products/${image}.webp`;
export const percentOff = (item) => Math.round((1 - item.price / item.was) * 100);

export function priceNode(item) {
  const node = el("p", { class: "price" });
  node.append(el("span", { class: "visually-hidden" }, "Event price "), el("strong", {}, money(item.price)));
  if (item.was > item.price) {
    node.append(el("span", { class: "visually-hidden" }, "instead of "), el("s", {}, money(item.was)));
  }
  return node;
}

export function stockNote(left) {
  if (left === 0) return { text: "Sold out for now", kind: "out" };
  if (left <= 11) return { text: `Only ${left} left`, kind: "low" };
  return { text: "In stock, packed within a day", kind: "ok" };
}

/** One product card. The whole card is the link; the round button adds to the basket. */
export function cardNode(item, left = null, eager = false) {
  const off = percentOff(item);
  const sold = left === 0;
  return el("li", { class: "card", "data-shelf": item.shelf },
    el("div", { class: "art" },
      el("img", { src: imageUrl(item.image), width: 640, height: 640, alt: "", loading: eager ? "eager" : "lazy", decoding: "async" }),
      off > 0 && el("span", { class: "badge" }, `−${off}%`),
      left !== null && left <= 11 && el("span", { class: "badge stock" }, sold ? "Sold out" : `${left} left`)),
    el("div", { class: "body" },
      el("h3", {}, el("a", { href: productUrl(item.id) }, item.name)),
      el("p", { class: "meta" }, item.size),
      el("div", { class: "buy" },
        priceNode(item),
        el("button", { class: "add", type: "button", "data-add": item.id, "data-name": item.name, "aria-label": `Add ${item.name} to the basket`, disabled: sold }, "+"))));
}

// The basket

function readCart() {
  try {
    const stored = JSON.parse(localStorage.getItem(CART_KEY) ?? "{}");
    const lines = Object.entries(stored).filter(([, n]) => Number.isInteger(n) && n > 0);
    return Object.fromEntries(lines.map(([id, n]) => [id, Math.min(n, MAX_PER_LINE)]));
  } catch {
    return {};
  }
}

let cart = readCart();

function saveCart() {
  try {
    localStorage.setItem(CART_KEY, JSON.stringify(cart));
  } catch {
    // Private windows may refuse: the basket then lasts as long as the page.
  }
  showCount();
  if ($("#cart")?.open) showLines();
}

export function addToCart(id, quantity = 1, name = "Item") {
  cart[id] = Math.min((cart[id] ?? 0) + quantity, MAX_PER_LINE);
  saveCart();
  toast(`${name}: ${cart[id]} in your basket`);
}

function setQuantity(id, quantity) {
  if (quantity <= 0) delete cart[id];
  else cart[id] = Math.min(quantity, MAX_PER_LINE);
  saveCart();
}

function showCount() {
  const count = Object.values(cart).reduce((sum, n) => sum + n, 0);
  const badge = $("[data-cart-count]");
  if (badge) badge.textContent = count;
  $("[data-cart-open]")?.setAttribute("aria-label", `Open the basket, ${count} ${count === 1 ? "item" : "items"}`);
}

async function showLines() {
  const list = $("#cart .lines");
  let feed, event;
  try {
    [feed, event] = await Promise.all([getJson("/data/catalogue.json"), getJson("/data/event.json")]);
  } catch {
    list.replaceChildren(el("li", { class: "empty" }, "The basket could not be loaded. Please close it and try again."));
    return;
  }
  const byId = new Map(feed.products.map((product) => [product.id, product]));
  const lines = Object.entries(cart).filter(([id]) => byId.has(id));
  let now = 0, before = 0;
  const focused = document.activeElement?.dataset?.step;

  list.replaceChildren(...lines.map(([id, quantity]) => {
    const item = byId.get(id);
    now += item.price * quantity;
    before += item.was * quantity;
    const step = (by, sign, label) =>
      el("button", { type: "button", "data-step": `${id} ${by}`, "aria-label": `${label}: ${item.name}` }, sign);
    return el("li", {},
      el("img", { src: imageUrl(item.image), width: 76, height: 76, alt: "" }),
      el("a", { href: productUrl(id) }, item.name, el("small", {}, item.size)),
      el("span", { class: "sum" }, money(item.price * quantity)),
      el("div", { class: "qty" }, step(-1, "−", "One less"), el("span", {}, String(quantity)), step(1, "+", "One more")));
  }));
  if (lines.length === 0) list.append(el("li", { class: "empty" }, "Nothing on the shelf yet."));
  if (focused) (list.querySelector(`[data-step="${CSS.escape(focused)}"]`) ?? $("#cart .close")).focus();

  const free = event.freeDeliveryFrom;
  const delivery = now === 0 || now >= free ? 0 : event.delivery;
  $("#cart .free span").textContent = now >= free
    ? "Delivery is on us."
    : `${money(free - now)} more and delivery is on us.`;
  $("#cart progress").value = Math.min(now / free, 1);
  $("#cart [data-saved]").textContent = money(before - now);
  $("#cart [data-delivery]").textContent = delivery === 0 ? "free" : money(delivery);
  $("#cart [data-total]").textContent = money(now + delivery);
}

function buildCart() {
  const drawer = el("dialog", { class: "drawer", id: "cart", "aria-labelledby": "cart-title" },
    el("header", {}, el("h2", { id: "cart-title" }, "Your basket"), el("button", { class: "close", type: "button", "aria-label": "Close the basket" }, "×")),
    el("div", { class: "free" }, el("span", {}, "Delivery is on us from €40."), el("progress", { max: 1, value: 0, "aria-label": "Progress to free delivery" })),
    el("ul", { class: "lines" }),
    el("footer", {},
      el("dl", {},
        el("dt", {}, "You save"), el("dd", { "data-saved": true }, money(0)),
        el("dt", {}, "Delivery"), el("dd", { "data-delivery": true }, "free"),
        el("dt", { class: "total" }, "Total"), el("dd", { class: "total", "data-total": true }, money(0))),
      el("button", { class: "button", type: "button", "data-checkout": true }, "Go to checkout"),
      el("p", { role: "status", "data-note": true }, "A sample shop: nothing is sold and nothing is sent.")));
  drawer.addEventListener("click", (event) => {
    const step = event.target.closest("[data-step]");
    if (step) {
      const [id, by] = step.dataset.step.split(" ");
      setQuantity(id, (cart[id] ?? 0) + Number(by));
    } else if (event.target.closest(".close") || event.target === drawer) {
      drawer.close();
    } else if (event.target.closest("[data-checkout]")) {
      $("[data-note]", drawer).textContent = "This is where a real shop would ask for your address. Thank you for looking around.";
    }
  });
  document.body.append(drawer, el("div", { class: "toast", role: "status", "aria-live": "polite" }));
}

let toastTimer;
function toast(message) {
  const node = $(".toast");
  node.textContent = message;
  node.classList.add("show");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => node.classList.remove("show"), 2600);
}

// The countdown

/** The event repeats every year; the phase says which way the clock runs. */
export function eventPhase(event, now = new Date()) {
  const at = (year, extraDays = 0) => new Date(year, event.month - 1, event.day + extraDays);
  const starts = at(now.getFullYear());
  const ends = at(now.getFullYear(), 1);
  if (now < starts) return { open: false, until: starts };
  if (now < ends) return { open: true, until: ends };
  return { open: false, until: at(now.getFullYear() + 1) };
}

function startCountdown(event) {
  const two = (n) => String(n).padStart(2, "0");
  const parts = Object.fromEntries(["days", "hours", "minutes", "seconds"].map((unit) => [unit, $(`[data-clock="${unit}"]`)]));
  const bar = $("[data-countdown-text]");
  const label = $("[data-clock-label]");
  const tick = () => {
    const now = new Date();
    const { open, until } = eventPhase(event, now);
    const left = Math.max(0, Math.floor((until - now) / 1000));
    const days = Math.floor(left / 86400), hours = Math.floor(left / 3600) % 24, minutes = Math.floor(left / 60) % 60, seconds = left % 60;
    if (parts.days) {
      parts.days.textContent = days;
      parts.hours.textContent = two(hours);
      parts.minutes.textContent = two(minutes);
      parts.seconds.textContent = two(seconds);
      label.textContent = open ? event.labels.open : event.labels.before;
    }
    bar.textContent = `${open ? "ends" : "starts"} in ${days > 0 ? `${days} d ` : ""}${two(hours)}:${two(minutes)}:${two(seconds)}`;
    if (open) {
      const clock = `${two(now.getHours())}:${two(now.getMinutes())}`;
      const current = event.hours.findLast((hour) => hour.at <= clock);
      $$(".hours li").forEach((li) => li.classList.toggle("now", $("time", li).dateTime === current?.at));
    }
  };
  tick();
  setInterval(tick, 1000);
}

// Page start

function startHero() {
  const video = $(".hero-video video");
  if (!video) return;
  const button = $(".hero-video button");
  const show = () => {
    button.setAttribute("aria-pressed", video.paused);
    button.setAttribute("aria-label", video.paused ? "Play the film" : "Pause the film");
  };
  video.addEventListener("play", show);
  video.addEventListener("pause", show);
  button.addEventListener("click", () => (video.paused ? video.play().catch(() => {}) : video.pause()));
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    video.autoplay = false;
    video.pause();
  }
  show();
}

buildCart();
showCount();
startHero();
getJson("/data/event.json").then(startCountdown).catch(() => {});

document.addEventListener("click", (event) => {
  const add = event.target.closest("[data-add]");
  if (add) addToCart(add.dataset.add, 1, add.dataset.name);
  if (event.target.closest("[data-cart-open]")) {
    $("#cart").showModal();
    showLines();
  }
});

// Another tab may change the basket.
addEventListener("storage", (event) => {
  if (event.key !== CART_KEY) return;
  cart = readCart();
  showCount();
  if ($("#cart").open) showLines();
});
