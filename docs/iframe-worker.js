/* Browsers start no worker from a file on disk, and the search of this site is one. There it runs in a hidden frame of
   the same page instead, which is asked and answers by messages as a worker is. Elsewhere nothing is changed. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.answer(data);
      inside.importScripts = (...urls) => this.load(urls.map((each) => new URL(each, url).href));
      this.load([url]);
    }

    /* Loads scripts one after the other; what is asked meanwhile waits until all are there. */
    load(urls) {
      this.loading = urls.reduce(
        (before, src) => before.then(() => new Promise((done) => {
          const script = this.frame.contentDocument.createElement("script");
          script.src = src;
          script.onload = script.onerror = done;
          this.frame.contentDocument.head.append(script);
        })),
        this.loading || Promise.resolve()
      );
      return this.loading;
    }

    postMessage(data) {
      this.loading.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }

    answer(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
