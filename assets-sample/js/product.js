// The product page: one product by its id, its sizes, and what stands near it.

import { $, addToCart, cardNode, el, getJson, imageUrl, money, percentOff, priceNode, productUrl, stockNote } from "./shop.js";
import { PRODUCTS, SHELVES, byId, kindOf, near, sameKind, unitPrice } from "./catalogue.js";

const wanted = new URLSearchParams(location.search).get("id");
const item = byId(wanted) ?? (wanted ? null : PRODUCTS[0]);

function missing() {
  document.title = "Not on the shelf · Eleventh Shelf";
  $("main").replaceChildren(el("div", { class: "page lost" },
    el("img", { src: "/img/empty-jar.svg", width: 420, height: 420, alt: "An open, empty jar" }),
    el("div", {}, el("h1", {}, "Not on the shelf."), el("p", {}, "We do not know this product. It may have been eaten."),
      el("p", { class: "actions" }, el("a", { class: "button", href: "/category.html" }, "See all shelves")))));
}

function show() {
  const kind = kindOf(item);
  const shelf = SHELVES.find((candidate) => candidate.id === item.shelf);
  document.title = `${item.name}, ${item.size} · Eleventh Shelf`;
  $('meta[name="description"]').content = `${kind.intro} ${item.size}, ${money(item.price)}.`;

  $(".stage").replaceChildren(el("img", {
    src: imageUrl(item.image), width: 640, height: 640, fetchpriority: "high",
    alt: `${kind.name}: a drawing of the package from the ${shelf.short.toLowerCase()} shelf, its ingredients beside it`,
  }));
  for (const node of [$(".stage"), $("#notes")]) node.dataset.shelf = item.shelf;

  $("#crumb-shelf").textContent = shelf.name;
  $("#crumb-shelf").href = `/category.html?shelf=${shelf.id}`;
  $("#here").textContent = item.name;
  $("#name").textContent = item.name;
  $("#maker").textContent = `${kind.maker.name}, ${kind.origin}`;
  $("#price").replaceChildren(...priceNode(item).childNodes);
  const off = percentOff(item);
  $("#unit").textContent = `${unitPrice(item)}${off > 0 ? ` · ${off}% off for 11.11` : ""}`;
  $("#intro").textContent = kind.intro;
  $("#text").textContent = item.text;

  $("#sizes").replaceChildren(...sameKind(item).map((other) => el("a", { href: productUrl(other.id), "aria-current": other.id === item.id ? "true" : null },
    el("span", {}, other.variant), el("small", {}, `${other.size} · ${money(other.price)}`))));
  $("#notes").replaceChildren(...kind.notes.map((note) => el("li", {}, note)));
  $("#pairs").textContent = `Try it with ${kind.pairs.slice(0, -1).join(", ")} or ${kind.pairs.at(-1)}.`;
  $("#ingredients").textContent = `${kind.ingredients[0].toUpperCase()}${kind.ingredients.slice(1)}${item.adds ? `, ${item.adds}` : ""}.`;
  $("#diet").textContent = item.diet.length ? `Good to know: ${item.diet.join(", ")}.` : "";
  $("#storage").textContent = shelf.storage;
  $("#maker-name").textContent = kind.maker.name;
  $("#maker-about").textContent = kind.maker.about;
  const [energy, fat, sugars, protein, salt] = kind.nutrition;
  const per = item.unit === "ml" ? "100 ml" : "100 g";
  $("#nutrition caption").textContent = `Typical values per ${per}`;
  const rows = [["Energy", `${energy} kJ / ${Math.round(energy / 4.184)} kcal`], ["Fat", `${fat} g`], ["Sugars", `${sugars} g`], ["Protein", `${protein} g`], ["Salt", `${salt} g`]];
  $("#nutrition tbody").replaceChildren(...rows.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value))));
  $("#near").replaceChildren(...near(item, 4).map((other) => cardNode(other)));
  buy();
}

function buy() {
  const output = $("#quantity");
  let quantity = 1;
  const step = (by) => {
    quantity = Math.min(24, Math.max(1, quantity + by));
    output.textContent = quantity;
  };
  $("#less").addEventListener("click", () => step(-1));
  $("#plus").addEventListener("click", () => step(1));
  $("#buy").addEventListener("click", () => addToCart(item.id, quantity, item.name));
  getJson("/data/stock.json").then(({ left }) => {
    const note = stockNote(left[item.id] ?? 0);
    $("#stock").textContent = note.text;
    $("#stock").className = `stock-line ${note.kind}`;
    $("#buy").disabled = note.kind === "out";
  }).catch(() => {});
}

if (item) show();
else missing();
