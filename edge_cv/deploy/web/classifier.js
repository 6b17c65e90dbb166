// Classifies photos in the browser: preprocessing, inference with LiteRT.js, and probabilities.
//
// Everything about the model (size, crop, range, types, labels) comes from its record, the JSON sidecar. `cropAndResize`
// gives the same bytes as converters/images/preprocessing.py, which resizes with Pillow: it uses the same coefficients in
// the same fixed point. The functions before `open` need no browser; the tests run them in Node.

/** An error whose message is shown to the visitor. */
export class ClassifierError extends Error {}

// ---------------------------------------------------------------------------------------------------------- the record

/**
 * Reads and checks a model's record. Its fields have the names and meanings of converters/record.py, which writes them.
 * Unknown fields are ignored; absent optional fields get their defaults.
 *
 * @param fields parsed JSON of the sidecar; may be untrusted.
 * @returns `{file, size_bytes, name, scheme, labels, preprocessing, input, output}`.
 * @throws ClassifierError if a field that the page needs is missing or has another type.
 */
export function readRecord(fields) {
  const part = (parent, name) => {
    const value = parent?.[name]
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid(name, "an object", value)
    return value
  }
  const optional = (parent, name, holds, expected) => {
    const value = parent[name] ?? null
    if (value !== null && !holds(value)) throw invalid(name, expected, value)
    return value
  }
  const isText = (value) => typeof value === "string"
  const isTexts = (value) => Array.isArray(value) && value.every(isText)
  const text = (parent, name) => optional(parent, name, isText, "a string")
  const whole = (parent, name) => optional(parent, name, Number.isInteger, "a whole number")
  const required = (value, name, expected) => {
    if (value === null) throw invalid(name, expected, value)
    return value
  }
  const tensor = (parent) => ({
    dtype: required(text(parent, "dtype"), "dtype", "a string"),
    shape: optional(parent, "shape", (value) => Array.isArray(value) && value.every(Number.isInteger), "whole numbers"),
    scale: optional(parent, "scale", Number.isFinite, "a number"),
    zero_point: whole(parent, "zero_point"),
  })
  const preprocessing = part(fields, "preprocessing")
  const size = whole(preprocessing, "image_size") // of a square; the only size in older records
  const height = required(whole(preprocessing, "height") ?? size, "height", "a whole number")
  const width = required(whole(preprocessing, "width") ?? size, "width", "a whole number")
  const channels = whole(preprocessing, "channels") ?? 3
  if (channels !== 1 && channels !== 3) throw invalid("channels", "1 or 3", channels)
  const perChannel = (name, otherwise) => {
    const holds = (value) => Array.isArray(value) && value.length === channels && value.every(Number.isFinite)
    const expected = channels === 3 ? "three numbers" : "one number"
    return optional(preprocessing, name, holds, expected) ?? Array(channels).fill(otherwise)
  }
  const input = part(fields, "input")
  const output = part(fields, "output")
  return {
    file: required(text(fields, "file"), "file", "a string"),
    size_bytes: required(whole(fields, "size_bytes"), "size_bytes", "a whole number"),
    name: text(fields, "name"),
    scheme: text(fields, "scheme"),
    labels: optional(fields, "labels", isTexts, "a list of strings"),
    preprocessing: {
      ...(size === null ? {} : { image_size: size }),
      height,
      width,
      channels,
      resize_to: whole(preprocessing, "resize_to") ?? Math.min(height, width),
      rule: text(preprocessing, "rule") ?? "crop_then_resize",
      interpolation: text(preprocessing, "interpolation") ?? "bicubic",
      mean: perChannel("mean", 0),
      std: perChannel("std", 1),
    },
    input: { ...tensor(input), pixel_offset: whole(input, "pixel_offset") },
    output: { ...tensor(output), values: text(output, "values") ?? "logits", activation: text(output, "activation") },
  }
}

function invalid(name, expected, value) {
  const received = String(JSON.stringify(value)).slice(0, 80)
  return new ClassifierError(`The model's record is invalid: ${name} must be ${expected}. Received: ${received}`)
}

// ------------------------------------------------------------------------------------------------------- preprocessing

const LONGEST_ASPECT = 16 // as in preprocessing.py: a longer photo is cropped before its short side is resized

/**
 * Crops and resizes a photo to the model's input size.
 *
 * @param image `{data, width, height}`: RGBA bytes, row by row, as in ImageData; alpha is ignored.
 * @param preprocessing of the record.
 * @returns Uint8Array of `height * width * channels`: RGB, or the luma of a grey input.
 */
export function cropAndResize(image, preprocessing) {
  const pixels = cropAndResizeRgb(image, preprocessing)
  return preprocessing.channels === 1 ? luma(pixels) : pixels
}

/** The luma of RGB pixels, ITU-R BT.601, rounded as Pillow does. */
function luma(pixels) {
  const grey = new Uint8Array(pixels.length / 3)
  for (let at = 0, from = 0; at < grey.length; at++, from += 3) {
    grey[at] = (19595 * pixels[from] + 38470 * pixels[from + 1] + 7471 * pixels[from + 2] + 0x8000) >> 16
  }
  return grey
}

function cropAndResizeRgb(image, preprocessing) {
  const { height: tall, width: wide, rule, interpolation } = preprocessing
  const shorter = Math.min(tall, wide)
  const to = preprocessing.resize_to ?? shorter
  let { width, height } = image
  if (!(width > 0 && height > 0)) throw new ClassifierError("The photo has no pixels.")
  const wider = width * tall >= height * wide // than the result: then the photo's height is the limit
  if (rule === "stretch") return resize(image, { left: 0, top: 0, width, height }, wide, tall, interpolation)
  if (rule === "crop_then_resize") {
    const part = wider
      ? { height: (height * shorter) / to, width: (height * wide * shorter) / (tall * to) }
      : { height: (width * tall * shorter) / (wide * to), width: (width * shorter) / to }
    part.height = Math.max(1, Math.floor(part.height))
    part.width = Math.max(1, Math.floor(part.width))
    const box = { left: (width - part.width + 1) >> 1, top: (height - part.height + 1) >> 1, ...part }
    return resize(image, box, wide, tall, interpolation)
  }
  if (rule !== "resize_then_crop") throw new ClassifierError(`The crop rule "${rule}" of the model is not supported.`)
  const box = { left: 0, top: 0, width, height }
  const longest = LONGEST_ASPECT * Math.min(width, height) * Math.ceil(Math.max(tall, wide) / shorter)
  if (Math.max(width, height) > longest) {
    box.width = Math.min(width, longest)
    box.height = Math.min(height, longest)
    box.left = (width - box.width) >> 1
    box.top = (height - box.height) >> 1
  }
  const byHeight = box.width * tall >= box.height * wide
  const resizedHeight = byHeight ? (tall * to) / shorter : (box.height * wide * to) / (box.width * shorter)
  const resizedWidth = byHeight ? (box.width * tall * to) / (box.height * shorter) : (wide * to) / shorter
  height = Math.max(tall, Math.floor(resizedHeight))
  width = Math.max(wide, Math.floor(resizedWidth))
  const resized = resize(image, box, width, height, interpolation)
  return cropped(resized, width, halfToEven((width - wide) / 2), halfToEven((height - tall) / 2), wide, tall)
}

/** Rounds half to even, as Python and numpy do. */
function halfToEven(value) {
  const low = Math.floor(value)
  if (value - low !== 0.5) return Math.round(value)
  return low % 2 === 0 ? low : low + 1
}

function cropped(pixels, width, left, top, wide, tall) {
  const part = new Uint8Array(wide * tall * 3)
  for (let y = 0; y < tall; y++) {
    const start = ((top + y) * width + left) * 3
    part.set(pixels.subarray(start, start + wide * 3), y * wide * 3)
  }
  return part
}

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI))
// Each kernel with its support, half its width (https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters); bicubic is
// Keys' with a = -1/2 (https://doi.org/10.1109/TASSP.1981.1163711). The terms are in the order in which Pillow adds them.
const KERNELS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {
    x = Math.abs(x)
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0
  }],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
} // prettier-ignore
const FRACTION_BITS = 22 // of a coefficient; 8 more hold the pixel, and 2 the sums outside 0..255

/** Resizes the box of an RGBA image with antialiasing, in two passes with 8 bits in between; returns RGB bytes. */
function resize(image, box, width, height, interpolation) {
  if (interpolation === "nearest") return nearest(image, box, width, height)
  const kernel = KERNELS[interpolation]
  if (kernel === undefined) throw new ClassifierError(`The interpolation "${interpolation}" of the model is not supported.`)
  const across = coefficients(box.width, width, kernel)
  const down = coefficients(box.height, height, kernel)
  const pixels = rgb(image, box)
  // since version 13 Pillow resizes the columns first if that removes far more rows than columns
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

/** Resizes each row of RGB pixels. */
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

/** Resizes each column of RGB pixels. */
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

/** Converts a fixed-point sum to a pixel, clipped to 0..255. */
function byte(sum) {
  const value = sum >> FRACTION_BITS
  return value < 0 ? 0 : value > 255 ? 255 : value
}

/** For each output pixel along one axis, the first input pixel and the fixed-point weights from there. */
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
    const positions = []
    for (let at = 0, place = step * 0.5; at < to; at++, place += step) positions.push(Math.trunc(place))
    return positions
  }
  const columns = places(box.width, width)
  const result = new Uint8Array(width * height * 3)
  let at = 0
  for (const y of places(box.height, height)) {
    for (const x of columns) {
      const inside = x < box.width && y < box.height // positions that rounding moves past the edge stay black
      const from = ((box.top + y) * image.width + box.left + x) * 4
      for (let channel = 0; channel < 3; channel++) result[at++] = inside ? image.data[from + channel] : 0
    }
  }
  return result
}

/**
 * Normalizes and quantizes pixels for the input tensor.
 *
 * @param pixels Uint8Array of `cropAndResize`.
 * @param record of `readRecord`.
 * @returns Float32Array or Uint8Array of the same length.
 */
export function toInput(pixels, record) {
  const { dtype, scale, zero_point: zeroPoint, pixel_offset: offset } = record.input
  const { mean, std } = record.preprocessing
  const channels = mean.length
  const inRange = (value, channel) => Math.fround(Math.fround(value - Math.fround(mean[channel])) / Math.fround(std[channel]))
  if (dtype === "float32") return Float32Array.from(pixels, (value, at) => inRange(value, at % channels))
  if (dtype !== "uint8") throw new ClassifierError(`The model's input is ${dtype}, which LiteRT.js does not support.`)
  const whole = Number.isInteger(offset)
    ? (value) => value + offset
    : (value, at) => halfToEven(Math.fround(inRange(value, at % channels) / Math.fround(scale))) + zeroPoint
  return Uint8Array.from(pixels, (value, at) => Math.min(255, Math.max(0, whole(value, at))))
}

/**
 * The top classes of an output. A single value decides between two classes, at a probability of 0.5.
 *
 * @param values the output tensor's values.
 * @param record of `readRecord`: quantization, logits or probabilities, and class names.
 * @param count how many classes.
 * @returns `[{index, label, probability}]`, most probable first, equal ones by index.
 */
export function topClasses(values, record, count = 5) {
  const { scale, zero_point: zeroPoint, dtype } = record.output
  const stored = Array.from(values)
  const outputs = dtype === "float32" ? stored : stored.map((q) => Math.fround((q - zeroPoint) * Math.fround(scale)))
  if (!outputs.every(Number.isFinite)) throw new ClassifierError("The model's output is not finite; its file may be broken.")
  const single = outputs.length === 1 // decides between two classes
  let probabilities = outputs
  if (record.output.values !== "probabilities" && (single || record.output.activation === "sigmoid")) {
    probabilities = outputs.map((logit) => 1 / (1 + Math.exp(-logit)))
  } else if (record.output.values !== "probabilities") {
    const most = outputs.reduce((a, b) => Math.max(a, b), -Infinity)
    const powers = outputs.map((logit) => Math.exp(logit - most))
    const sum = powers.reduce((a, b) => a + b, 0)
    probabilities = powers.map((power) => power / sum)
  }
  if (single) probabilities = [1 - probabilities[0], probabilities[0]]
  const scores = single ? probabilities : outputs
  const labels = single && record.labels?.length === 1 ? [`not ${record.labels[0]}`, record.labels[0]] : record.labels
  const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a] || a - b)
  return order.slice(0, count).map((index) => ({
    index,
    label: labels?.[index] ?? `class ${index}`,
    probability: probabilities[index],
  }))
}

/** The median, or null if there are no numbers. */
export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length === 0 ? null : sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

// ------------------------------------------------------------------------------------------------------ in the browser

const MAX_THREADS = 4 // networks of this size do not get faster with more
const MAX_PIXELS = 89_478_485 // as in decoding.py

/**
 * Opens a model.
 *
 * @param sidecarUrl the URL of the model's `.json` sidecar.
 * @returns a Classifier. Rejects with a ClassifierError.
 */
export async function open(sidecarUrl) {
  if (typeof WebAssembly !== "object") {
    throw new ClassifierError("This browser does not support WebAssembly or has it disabled. The model needs it.")
  }
  const fields = await (await fetched(sidecarUrl, "record")).json().catch(() => {
    throw new ClassifierError("The model's record is invalid: it is not JSON.")
  })
  const record = readRecord(fields)
  const url = new URL(encodeURIComponent(record.file), new URL(sidecarUrl, document.baseURI))
  const content = new Uint8Array(await (await fetched(url, "file")).arrayBuffer())
  const identifier = String.fromCharCode(...content.subarray(4, 8))
  if (identifier !== "TFL3" || content.length !== record.size_bytes) {
    throw new ClassifierError(
      `The model's file is broken: ${content.length} of ${record.size_bytes} bytes were received` +
        (identifier === "TFL3" ? "." : ", and they are not a TFLite model."),
    )
  }
  let litert
  const threads = globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1
  try {
    litert = await import("@litertjs/core")
    await litert.loadLiteRt(new URL("litert/wasm/", document.baseURI).href, { threads: threads > 1 })
  } catch (error) {
    throw new ClassifierError(`LiteRT.js cannot start in this browser: ${reason(error)}`)
  }
  try {
    const model = await litert.loadAndCompile(content, { accelerator: "wasm", cpuOptions: { numThreads: threads } })
    const classifier = new Classifier(litert, model, record, threads)
    const { height, width, channels } = record.preprocessing
    await classifier.run(new Uint8Array(height * width * channels)) // warm-up
    return classifier
  } catch (error) {
    if (error instanceof ClassifierError) throw error
    throw new ClassifierError(`LiteRT.js cannot run the model; its file may be broken: ${reason(error)}`)
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
   * Classifies a photo.
   *
   * @param image ImageData.
   * @returns `{classes, preprocessMs, inferenceMs}`.
   */
  async classify(image) {
    const start = performance.now()
    const pixels = cropAndResize(image, this.record.preprocessing)
    const preprocessMs = performance.now() - start
    const { values, inferenceMs } = await this.run(pixels)
    return { classes: topClasses(values, this.record), preprocessMs, inferenceMs }
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
 * Decodes a photo as Python does: upright, transparent parts on white, without its colour profile.
 *
 * @param source a Blob, or an element that a canvas can draw (a video).
 * @returns ImageData. Rejects with a ClassifierError.
 */
export async function decode(source) {
  let bitmap = source
  if (source instanceof Blob) {
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "default" }
    bitmap = await createImageBitmap(source, options).catch(() => {
      throw new ClassifierError(source.size ? "The browser cannot decode this file as a photo." : "The file is empty.")
    })
  }
  const width = bitmap.videoWidth ?? bitmap.width
  const height = bitmap.videoHeight ?? bitmap.height
  try {
    if (width * height > MAX_PIXELS) {
      throw new ClassifierError(`The photo is too large: ${width} x ${height} pixels; at most ${MAX_PIXELS} are supported.`)
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
    throw new ClassifierError(`This browser cannot draw the photo: ${reason(error)}`)
  } finally {
    bitmap.close?.()
  }
}
