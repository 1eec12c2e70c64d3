// Draws the diagrams of a page that has some. The library lies beside the pages; nothing is asked of another server.
(() => {
    const sources = document.querySelectorAll("code.language-mermaid");
    if (sources.length === 0) return;
    const dark = ["ayu", "coal", "navy"].some((theme) => document.documentElement.classList.contains(theme));
    const library = document.createElement("script");
    library.src = `${path_to_root}mermaid.min.js`;
    library.onload = () => {
        const diagrams = [...sources].map((source) => {
            const diagram = document.createElement("pre");
            diagram.className = "mermaid";
            diagram.textContent = source.textContent;
            source.parentElement.replaceWith(diagram);
            return diagram;
        });
        mermaid.initialize({ startOnLoad: false, theme: dark ? "dark" : "default", sequence: { wrap: true, width: 200 } });
        mermaid.run({ nodes: diagrams }).catch((error) => console.error(error.message ?? String(error)));
    };
    document.head.append(library);
})();
