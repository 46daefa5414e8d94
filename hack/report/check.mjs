// Opens the sample reports in headless Chromium, and fails for errors on the console, requests to
// the network, a table that does not sort or search, text that does not fit, and what axe-core finds.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const [dir, chromium] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const failures = [];
const expect = (ok, what) => { if (!ok) failures.push(what); };

const browser = await puppeteer.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

async function open(name, width, scheme) {
  const page = await browser.newPage();
  await page.setViewport({ width, height: 1000 });
  await page.setBypassCSP(true); // for axe-core, which is injected
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  page.on("console", message => { if (message.type() === "error") failures.push(`${name}: console: ${message.text()}`); });
  page.on("pageerror", error => failures.push(`${name}: ${error.message}`));
  page.on("request", request => expect(/^(file|data):/.test(request.url()), `${name}: asks for ${request.url()}`));
  const start = performance.now();
  await page.goto(pathToFileURL(join(dir, name)).href, { waitUntil: "load" });
  await page.evaluate(() => new Promise(done => requestAnimationFrame(() => setTimeout(done))));
  return { page, took: performance.now() - start };
}

const cells = (page, column) => page.$$eval("#tokens tbody tr", (rows, i) => rows.map(row => row.cells[i].textContent), column);
const sorted = list => list.every((value, i) => i === 0 || list[i - 1] <= value);

for (const name of ["small.html", "empty.html"]) {
  for (const width of [400, 1600]) {
    for (const scheme of ["light", "dark"]) {
      const { page } = await open(name, width, scheme);
      const where = `${name} at ${width} pixels, ${scheme}`;
      expect(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${where}: the page scrolls sideways`);
      await page.evaluate(axe);
      const found = await page.evaluate(() => globalThis.axe.run());
      for (const violation of found.violations) failures.push(`${where}: ${violation.id}: ${violation.nodes.map(node => node.target).join(", ")}`);
      await page.screenshot({ path: join(dir, `${name}-${width}-${scheme}.png`), fullPage: width === 1600 });
      await page.close();
    }
  }
}

const { page, took } = await open("large.html", 1600, "light");
console.log(`20,000 tokens open in ${Math.round(took)} ms`);
expect(took < 2000, `20,000 tokens took ${Math.round(took)} ms to open`);
const heads = await page.$$("#tokens th button");
await heads[4].click();
const ages = (await cells(page, 4)).map(Number);
expect(ages.length > 0 && sorted(ages) && ages[0] === 0, "a click on the age does not sort by it");
await heads[4].click();
const old = (await cells(page, 4)).map(Number);
expect(sorted(old.toReversed()) && old[0] > ages.at(-1), "a second click does not turn the order round");
await heads[8].click();
expect((await cells(page, 8))[0] === "cluster-admin", "the reach is not sorted by danger");
await page.type("#search", "token-19999");
expect((await cells(page, 1)).join() === "token-19999", "the search does not find one token");
expect(/^1 of 20000 /.test(await page.$eval("#count", count => count.textContent)), "the search does not say how many it found");
await page.$eval("#search", search => { search.value = ""; search.dispatchEvent(new Event("input")); });
await page.click("#more");
expect((await cells(page, 1)).length === 600, "'Show more' does not show more");
await page.pdf({ path: join(dir, "large.pdf"), pageRanges: "1" });
await browser.close();

for (const failure of failures) console.error(failure);
process.exit(failures.length > 0 ? 1 : 0);
