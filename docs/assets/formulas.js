// Formulas are TeX in the page; where KaTeX can be had it sets them, else they stay readable as TeX.
document$.subscribe(({ body }) => {
  if (typeof renderMathInElement === "undefined") return
  renderMathInElement(body, {
    delimiters: [
      { left: "\\(", right: "\\)", display: false },
      { left: "\\[", right: "\\]", display: true },
    ],
  })
})
