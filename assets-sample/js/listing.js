// The category page: filters, search and sorting, all of it kept in the address so that it can be shared.

import { $, $$, cardNode, el, getJson, money } from "./shop.js";
import { KINDS, PRODUCTS, SHELVES, find, highestPrice } from "./catalogue.js";

const PAGE = 24;
const form = $("#filters");
const grid = $("#results");
const count = $("#count");
const more = $("#more");
const sort = $("#sort");

const address = new URLSearchParams(location.search);
const shelf = SHELVES.find((candidate) => candidate.id === address.get("shelf")) ?? null;
const ceiling = Math.ceil(highestPrice(shelf?.id) / 100);
let shown = PAGE;
let stock = null;

function head() {
  const title = shelf ? shelf.name : "All shelves";
  document.title = `${title} · Eleventh Shelf`;
  $("#title").textContent = title;
  $("#blurb").textContent = shelf ? shelf.blurb : `${PRODUCTS.length} things worth opening, from ${KINDS.length} recipes and twenty-nine makers.`;
  $(".cat-head").dataset.shelf = shelf?.id ?? "";
  $("#here").textContent = title;
  $(".cat-art").replaceChildren(...(shelf ? [shelf] : SHELVES).map(({ id }) =>
    el("img", { src: `/img/shelves/${id}.svg`, width: 280, height: 490, alt: "", loading: "lazy" })));
  for (const tab of $$(".shelf-tabs a")) {
    if ((tab.dataset.tab || null) === (shelf?.id ?? null)) {
      tab.setAttribute("aria-current", "page");
      tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.offsetLeft - 24;
    }
  }
}

function readAddress() {
  $('.search input[name="q"]').value = address.get("q") ?? "";
  const price = form.elements.max;
  price.max = ceiling;
  price.value = address.get("max") ?? ceiling;
  for (const box of $$('input[name="diet"]', form)) box.checked = address.getAll("diet").includes(box.value);
  form.elements.stock.checked = address.get("stock") === "1";
  form.elements.deal.checked = address.get("deal") === "1";
  if ([...sort.options].some((option) => option.value === address.get("sort"))) sort.value = address.get("sort");
}

function state() {
  return {
    shelf: shelf?.id ?? null,
    text: $('.search input[name="q"]').value.trim(),
    maxPrice: Number(form.elements.max.value) >= ceiling ? null : Number(form.elements.max.value) * 100,
    diets: $$('input[name="diet"]:checked', form).map((box) => box.value),
    inStock: form.elements.stock.checked,
    minOff: form.elements.deal.checked ? 20 : 0,
    sort: sort.value,
  };
}

function writeAddress(now) {
  const query = new URLSearchParams();
  if (now.shelf) query.set("shelf", now.shelf);
  if (now.text) query.set("q", now.text);
  if (now.maxPrice !== null) query.set("max", now.maxPrice / 100);
  for (const diet of now.diets) query.append("diet", diet);
  if (now.inStock) query.set("stock", "1");
  if (now.minOff) query.set("deal", "1");
  if (now.sort !== "featured") query.set("sort", now.sort);
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

function render() {
  const now = state();
  const results = find(now, stock);
  $("#max-out").textContent = money(Number(form.elements.max.value) * 100);
  count.textContent = `${results.length} ${results.length === 1 ? "product" : "products"}`;
  grid.replaceChildren(...results.slice(0, shown).map((item, index) => cardNode(item, stock?.[item.id] ?? null, index < 4)));
  $("#none").hidden = results.length > 0;
  more.hidden = results.length <= shown;
  more.textContent = `Show ${Math.min(PAGE, results.length - shown)} more`;
}

function changed() {
  shown = PAGE;
  writeAddress(state());
  render();
}

form.addEventListener("input", changed);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => {
  form.elements.max.value = ceiling;
  changed();
}));
sort.addEventListener("change", changed);
$(".search").addEventListener("submit", (event) => {
  event.preventDefault();
  changed();
});
$('.search input[name="q"]').addEventListener("input", changed);
more.addEventListener("click", () => {
  const first = shown;
  shown += PAGE;
  render();
  $("a", grid.children[first])?.focus({ preventScroll: true });
});

if (matchMedia("(min-width: 900px)").matches) $(".filters details").open = true;
head();
readAddress();
// Stock decides a badge and a filter: the page is complete without it, and drawn once with it where it comes quickly.
getJson("/data/stock.json")
  .then((answer) => { stock = answer.left; })
  .catch(() => {})
  .finally(render);
