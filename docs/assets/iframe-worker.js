// Browsers start no worker for a page that is read from a folder (file:). There a hidden frame does a worker's work, so
// that search works without a server. The file's name is what mkdocs-material's plugin `offline` looks for.
if (location.protocol === "file:") {
  const load = (frame, url) =>
    new Promise((done, fail) => {
      const script = frame.contentDocument.createElement("script")
      script.src = url
      script.onload = done
      script.onerror = () => fail(new Error(`cannot load ${url}`))
      frame.contentDocument.head.append(script)
    })

  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inside = this.frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.importScripts = (...urls) => urls.reduce((before, one) => before.then(() => load(this.frame, one)), Promise.resolve())
      this.loaded = load(this.frame, url)
    }

    postMessage(data) {
      const { contentWindow } = this.frame
      this.loaded.then(() => contentWindow.dispatchEvent(new contentWindow.MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
