// The page, from the answer to the details.

const section = element("section", {}, headline(), tiles(), policyTable(), attainmentCard(), latencyCard(), coresCard(), tenantsCard(), scenarioCard());
document.getElementById("main").append(section);
for (const part of section.querySelectorAll(".card[id]")) {
  document.getElementById("jumps").append(element("a", { href: `#${part.id}` }, part.querySelector("h2").textContent));
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
