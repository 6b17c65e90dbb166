// A classifier in the browser: a photo's pixels through the artifact's own preprocessing, LiteRT.js and softmax.
//
// Everything about the model (size, crop, range, types, labels) comes from its sidecar. `cropAndResize` gives the same
// bytes as converters/preprocessing.py, which resizes with Pillow: the same coefficients in the same fixed point.
// The functions up to `open` need no browser; tests run them in Node.

/** What a person at the page can be told. */
export class ClassifierError extends Error {}

// ------------------------------------------------------------------------------------------------ from photo to input

const LONGEST_ASPECT = 16 // as in preprocessing.py: a longer photo is cut before its short side is resized

/**
 * The part of a photo that the model sees, in the model's size.
 *
 * @param image `{data, width, height}`: RGBA bytes, row by row, as ImageData has them; alpha is not looked at.
 * @param preprocessing the sidecar's.
 * @returns Uint8Array of `image_size * image_size * 3`, RGB.
 */
export function cropAndResize(image, preprocessing) {
  const { image_size: size, rule, interpolation } = preprocessing
  const to = preprocessing.resize_to ?? size
  let { width, height } = image
  if (!(width > 0 && height > 0)) throw new ClassifierError("The photo has no pixels.")
  const short = Math.min(width, height)
  if (rule === "stretch") return resize(image, { left: 0, top: 0, width, height }, size, size, interpolation)
  if (rule === "crop_then_resize") {
    const side = Math.max(1, Math.floor((short * size) / to))
    const box = { left: (width - side + 1) >> 1, top: (height - side + 1) >> 1, width: side, height: side }
    return resize(image, box, size, size, interpolation)
  }
  if (rule !== "resize_then_crop") throw new ClassifierError(`The model's crop rule "${rule}" is not known.`)
  const box = { left: 0, top: 0, width, height }
  if (Math.max(width, height) > LONGEST_ASPECT * short) {
    box.width = Math.min(width, LONGEST_ASPECT * short)
    box.height = Math.min(height, LONGEST_ASPECT * short)
    box.left = (width - box.width) >> 1
    box.top = (height - box.height) >> 1
  }
  width = Math.max(size, Math.floor((box.width * to) / short))
  height = Math.max(size, Math.floor((box.height * to) / short))
  const resized = resize(image, box, width, height, interpolation)
  return cut(resized, width, halfToEven((width - size) / 2), halfToEven((height - size) / 2), size)
}

/** The nearest whole number, a half to the even one, as Python's and numpy's rounding. */
function halfToEven(value) {
  const low = Math.floor(value)
  if (value - low !== 0.5) return Math.round(value)
  return low % 2 === 0 ? low : low + 1
}

function cut(pixels, width, left, top, size) {
  const square = new Uint8Array(size * size * 3)
  for (let y = 0; y < size; y++) {
    const start = ((top + y) * width + left) * 3
    square.set(pixels.subarray(start, start + size * 3), y * size * 3)
  }
  return square
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI))
// Each kernel and half its width (https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters); bicubic is
// Keys' with a = -1/2 (https://doi.org/10.1109/TASSP.1981.1163711). The terms stand in the order in which Pillow adds them.
const KERNELS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {
    x = Math.abs(x)
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0
  }],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
} // prettier-ignore
const FRACTION_BITS = 22 // of a coefficient; 8 more are the pixel, 2 are kept for sums outside of 0..255

/** RGB bytes of the box of an RGBA image, resized with antialiasing: rows and columns apart, 8 bits in between. */
function resize(image, box, width, height, interpolation) {
  if (interpolation === "nearest") return nearest(image, box, width, height)
  const kernel = KERNELS[interpolation]
  if (kernel === undefined) throw new ClassifierError(`The model's interpolation "${interpolation}" is not known.`)
  const across = coefficients(box.width, width, kernel)
  const down = coefficients(box.height, height, kernel)
  const pixels = rgb(image, box)
  // from version 13 on Pillow begins with the columns where far more rows than columns go
  const columnsFirst = box.height > height && box.height - height > 2 * (box.width - width)
  if (columnsFirst) return resizeRows(resizeColumns(pixels, box.width, down), box.width, across)
  return resizeColumns(resizeRows(pixels, box.width, across), width, down)
}

function rgb(image, box) {
  const pixels = new Uint8Array(box.width * box.height * 3)
  for (let y = 0, at = 0; y < box.height; y++) {
    const start = ((box.top + y) * image.width + box.left) * 4
    for (let from = start; from < start + box.width * 4; from += 4) {
      pixels[at++] = image.data[from]
      pixels[at++] = image.data[from + 1]
      pixels[at++] = image.data[from + 2]
    }
  }
  return pixels
}

/** Each row of RGB pixels in a new length. */
function resizeRows(pixels, width, across) {
  const height = pixels.length / 3 / width
  const result = new Uint8Array(across.length * height * 3)
  for (let y = 0, at = 0; y < height; y++) {
    for (const { first, weights } of across) {
      let red = 1 << (FRACTION_BITS - 1)
      let green = red
      let blue = red
      for (let k = 0, from = (y * width + first) * 3; k < weights.length; k++, from += 3) {
        red += pixels[from] * weights[k]
        green += pixels[from + 1] * weights[k]
        blue += pixels[from + 2] * weights[k]
      }
      result[at++] = byte(red)
      result[at++] = byte(green)
      result[at++] = byte(blue)
    }
  }
  return result
}

/** Each column of RGB pixels in a new length. */
function resizeColumns(pixels, width, down) {
  const step = width * 3
  const result = new Uint8Array(step * down.length)
  let at = 0
  for (const { first, weights } of down) {
    for (let x = 0; x < step; x++) {
      let sum = 1 << (FRACTION_BITS - 1)
      for (let k = 0, from = first * step + x; k < weights.length; k++, from += step) sum += pixels[from] * weights[k]
      result[at++] = byte(sum)
    }
  }
  return result
}

/** A sum in fixed point as a pixel, cut off at 0 and 255. */
function byte(sum) {
  const value = sum >> FRACTION_BITS
  return value < 0 ? 0 : value > 255 ? 255 : value
}

/** For each output pixel along one axis the first input pixel that it is made of, and whole-number weights from there on. */
function coefficients(from, to, [support, kernel]) {
  if (from === to) return Array.from({ length: to }, (_, at) => ({ first: at, weights: [1 << FRACTION_BITS] }))
  const scale = from / to
  const stretch = Math.max(scale, 1)
  const reach = support * stretch
  return Array.from({ length: to }, (_, at) => {
    const centre = (at + 0.5) * scale
    const first = Math.max(0, Math.trunc(centre - reach + 0.5))
    const end = Math.min(from, Math.trunc(centre + reach + 0.5))
    const values = []
    let sum = 0
    for (let x = first; x < end; x++) {
      const value = kernel((x - centre + 0.5) * (1 / stretch))
      values.push(value)
      sum += value
    }
    const weights = values.map((value) => {
      const share = (sum === 0 ? value : value / sum) * (1 << FRACTION_BITS)
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5)
    })
    return { first, weights }
  })
}

function nearest(image, box, width, height) {
  const places = (from, to) => {
    const step = from / to
    const found = []
    for (let at = 0, place = step * 0.5; at < to; at++, place += step) found.push(Math.trunc(place))
    return found
  }
  const columns = places(box.width, width)
  const result = new Uint8Array(width * height * 3)
  let at = 0
  for (const y of places(box.height, height)) {
    for (const x of columns) {
      const inside = x < box.width && y < box.height // what rounding carries past the edge stays black
      const from = ((box.top + y) * image.width + box.left + x) * 4
      for (let channel = 0; channel < 3; channel++) result[at++] = inside ? image.data[from + channel] : 0
    }
  }
  return result
}

/**
 * The input tensor for pixels, as the sidecar tells it.
 *
 * @param pixels Uint8Array, RGB.
 * @param record the sidecar.
 * @returns Float32Array or Uint8Array of the same length.
 */
export function toInput(pixels, record) {
  const { dtype, scale, zero_point: zeroPoint, pixel_offset: offset } = record.input
  const { mean, std } = record.preprocessing
  const inRange = (value, channel) => Math.fround(Math.fround(value - Math.fround(mean[channel])) / Math.fround(std[channel]))
  if (dtype === "float32") return Float32Array.from(pixels, (value, at) => inRange(value, at % 3))
  if (dtype !== "uint8") throw new ClassifierError(`The model takes ${dtype}, which LiteRT.js does not know.`)
  const whole = Number.isInteger(offset)
    ? (value) => value + offset
    : (value, at) => halfToEven(Math.fround(inRange(value, at % 3) / Math.fround(scale))) + zeroPoint
  return Uint8Array.from(pixels, (value, at) => Math.min(255, Math.max(0, whole(value, at))))
}

/**
 * The likeliest classes of an output.
 *
 * @param values the output tensor's numbers.
 * @param record the sidecar: how they are dequantized, whether they are logits, the classes' names.
 * @param count how many.
 * @returns `[{index, label, probability}]`, likeliest first; of equal ones the lower class comes first.
 */
export function likeliest(values, record, count = 5) {
  const { scale, zero_point: zeroPoint, dtype } = record.output
  const stored = Array.from(values)
  const outputs = dtype === "float32" ? stored : stored.map((q) => Math.fround((q - zeroPoint) * Math.fround(scale)))
  if (!outputs.every(Number.isFinite)) throw new ClassifierError("The model gave no numbers: its file must be broken.")
  let probabilities = outputs
  if (record.output.values !== "probabilities") {
    const most = outputs.reduce((a, b) => Math.max(a, b), -Infinity)
    const powers = outputs.map((logit) => Math.exp(logit - most))
    const sum = powers.reduce((a, b) => a + b, 0)
    probabilities = powers.map((power) => power / sum)
  }
  const order = outputs.map((_, index) => index).sort((a, b) => outputs[b] - outputs[a] || a - b)
  return order.slice(0, count).map((index) => ({
    index,
    label: record.labels?.[index] ?? `class ${index}`,
    probability: probabilities[index],
  }))
}

/** The middle of some numbers, or null of none. */
export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length === 0 ? null : sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

// ------------------------------------------------------------------------------------------------------ in the browser

const MOST_THREADS = 4 // more wait for one another: a network of this size has little to share out
const MOST_PIXELS = 89_478_485 // as decoding.py accepts

/**
 * Opens a model.
 *
 * @param sidecarUrl of the `.json` beside the model's file.
 * @returns a Classifier. Rejects with a ClassifierError in words.
 */
export async function open(sidecarUrl) {
  if (typeof WebAssembly !== "object") {
    throw new ClassifierError("This browser has no WebAssembly, or it is switched off; the model cannot run without it.")
  }
  const record = await (await fetched(sidecarUrl, "description")).json().catch(() => {
    throw new ClassifierError("The model's description is broken: it is no JSON.")
  })
  if (!record?.input?.dtype || !record?.output?.dtype || !record?.preprocessing?.image_size || !record?.file) {
    throw new ClassifierError("The model's description is broken: it does not tell input, output and preprocessing.")
  }
  const url = new URL(encodeURIComponent(record.file), new URL(sidecarUrl, document.baseURI))
  const content = new Uint8Array(await (await fetched(url, "file")).arrayBuffer())
  const identifier = String.fromCharCode(...content.subarray(4, 8))
  if (identifier !== "TFL3" || content.length !== record.size_bytes) {
    throw new ClassifierError(
      `The model's file is broken: ${content.length} bytes of ${record.size_bytes} came` +
        (identifier === "TFL3" ? "." : ", and they are no TFLite model."),
    )
  }
  let litert
  const threads = globalThis.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1
  try {
    litert = await import("@litertjs/core")
    await litert.loadLiteRt(new URL("litert/wasm/", document.baseURI).href, { threads: threads > 1 })
  } catch (error) {
    throw new ClassifierError(`LiteRT.js cannot be started in this browser: ${reason(error)}`)
  }
  try {
    const model = await litert.loadAndCompile(content, { accelerator: "wasm", cpuOptions: { numThreads: threads } })
    const classifier = new Classifier(litert, model, record, threads)
    await classifier.run(new Uint8Array(record.preprocessing.image_size ** 2 * 3)) // the first inference prepares much
    return classifier
  } catch (error) {
    if (error instanceof ClassifierError) throw error
    throw new ClassifierError(`The model cannot be run by LiteRT.js; its file may be broken: ${reason(error)}`)
  }
}

async function fetched(url, what) {
  try {
    const response = await fetch(url)
    if (response.ok) return response
    throw new Error(`${response.status} ${response.statusText}`)
  } catch (error) {
    throw new ClassifierError(`The model's ${what} cannot be loaded: ${reason(error)}`)
  }
}

const reason = (error) => String(error?.message ?? error).split("\n")[0]

/** A model that is ready to run. */
class Classifier {
  constructor(litert, model, record, threads) {
    Object.assign(this, { litert, model, record, threads })
  }

  /**
   * What the model sees in a photo.
   *
   * @param image ImageData.
   * @returns `{classes, preprocessMs, inferenceMs}`.
   */
  async classify(image) {
    const start = performance.now()
    const pixels = cropAndResize(image, this.record.preprocessing)
    const preprocessMs = performance.now() - start
    const { values, inferenceMs } = await this.run(pixels)
    return { classes: likeliest(values, this.record), preprocessMs, inferenceMs }
  }

  async run(pixels) {
    const input = new this.litert.Tensor(toInput(pixels, this.record), this.record.input.shape)
    let outputs = []
    try {
      const start = performance.now()
      outputs = await this.model.run([input])
      const values = outputs[0].toTypedArray().slice()
      return { values, inferenceMs: performance.now() - start }
    } finally {
      input.delete()
      for (const output of outputs) output.delete()
    }
  }
}

/**
 * A photo's pixels, upright, transparent parts on white, its colour profile ignored, as Python decodes it.
 *
 * @param source a Blob, or what a canvas can draw (a video).
 * @returns ImageData. Rejects with a ClassifierError in words.
 */
export async function decode(source) {
  let bitmap = source
  if (source instanceof Blob) {
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "default" }
    bitmap = await createImageBitmap(source, options).catch(() => {
      throw new ClassifierError(source.size ? "This is no photo that the browser can decode." : "The file is empty.")
    })
  }
  const width = bitmap.videoWidth ?? bitmap.width
  const height = bitmap.videoHeight ?? bitmap.height
  try {
    if (width * height > MOST_PIXELS) {
      throw new ClassifierError(`The photo is too large: ${width} x ${height} pixels; ${MOST_PIXELS} are accepted.`)
    }
    const canvas = document.createElement("canvas")
    Object.assign(canvas, { width, height })
    const context = canvas.getContext("2d", { willReadFrequently: true })
    context.fillStyle = "white"
    context.fillRect(0, 0, width, height)
    context.drawImage(bitmap, 0, 0)
    return context.getImageData(0, 0, width, height)
  } catch (error) {
    if (error instanceof ClassifierError) throw error
    throw new ClassifierError(`The photo cannot be drawn by this browser: ${reason(error)}`)
  } finally {
    bitmap.close?.()
  }
}
