package dev.edgecv.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.nio.ByteBuffer
import java.security.MessageDigest

/**
 * The description of a tensor in a record.
 *
 * @property scale real value = scale * (stored - zeroPoint); null for a float tensor.
 */
data class TensorRecord(
    val name: String = "",
    val shape: List<Int> = emptyList(),
    val dtype: String = "",
    val scale: Float? = null,
    val zeroPoint: Int? = null,
)

/**
 * The description of the input tensor.
 *
 * @property pixelOffset see [InputWriter].
 * @property takesPixels whether the model takes pixels 0..255.
 */
data class InputRecord(
    val tensor: TensorRecord = TensorRecord(),
    val pixelOffset: Int? = null,
    val takesPixels: Boolean? = null,
)

/**
 * The description of the output tensor.
 *
 * @property values `logits` or `probabilities`.
 * @property activation the function from logits to probabilities: `sigmoid`, or else softmax. A single output is that of a sigmoid.
 */
data class OutputRecord(val tensor: TensorRecord = TensorRecord(), val values: String = LOGITS, val activation: String = "") {
    val logits: Boolean get() = values != PROBABILITIES

    companion object {
        const val LOGITS = "logits"
        const val PROBABILITIES = "probabilities"
        const val SIGMOID = "sigmoid"
    }
}

/**
 * The description of a model file, from its sidecar or from the metadata inside the file. Everything that the app knows
 * about a model comes from here. The fields have the names and meanings of `converters/record.py`, which writes them;
 * the conversion's report (parity, options, operators, versions) is not read.
 *
 * @property name the network's name, the same for its float and its int8 file.
 * @property scheme the quantization scheme, such as `int8`; empty if it is unknown.
 * @property format `tflite`; empty if it is unknown.
 * @property preprocessing null if it is unknown; the model cannot be used then.
 * @property labels class names in the order of the outputs; for a single output those of 0 and of 1, or the latter alone. Null if there
 *     are none.
 * @property macs multiply-accumulates of one inference.
 * @property file, sha256, sizeBytes the model file that a sidecar belongs to; null in embedded metadata.
 */
data class Record(
    val name: String,
    val scheme: String = "",
    val format: String = "",
    val preprocessing: Preprocessing? = null,
    val labels: List<String>? = null,
    val input: InputRecord = InputRecord(),
    val output: OutputRecord = OutputRecord(),
    val macs: Long? = null,
    val target: String? = null,
    val file: String? = null,
    val sha256: String? = null,
    val sizeBytes: Long? = null,
) {
    companion object {
        /**
         * Reads the record of a model file: from the sidecar if there is one, else from edge_cv's embedded metadata, else
         * from the standard TFLite metadata that other programs write.
         *
         * @param file the model's file name, for messages and as the default name.
         * @param content the model's bytes.
         * @param sidecar the text of `<stem>.json`, or null.
         * @param labels the text of a file with one class name a line, which replaces the record's names; or null.
         * @throws InputError if the file is not a TFLite file, if the record is invalid, or if the sidecar belongs to
         *     another file.
         */
        fun read(file: String, content: ByteBuffer, sidecar: String?, labels: String? = null): Record {
            val record = read(file, content, sidecar)
            return if (labels == null) record else record.copy(labels = lines(labels, "The labels of $file"))
        }

        private fun read(file: String, content: ByteBuffer, sidecar: String?): Record {
            val model = TfliteFile(content)
            if (sidecar != null) {
                val where = "The sidecar of $file"
                val record = fromJson(sidecar, file, where)
                if (record.sha256 != null && record.sha256 != sha256(content)) {
                    throw InputError("$where belongs to another file: its SHA-256 is not this file's.")
                }
                return record
            }
            return model.embeddedRecord()?.let { fromJson(it, file, "The metadata of $file") } ?: fromStandardMetadata(file, model)
        }

        /**
         * Parses and checks a record. The text may be untrusted; unknown and absent fields are allowed.
         *
         * @param file the default for `name`.
         * @param where what holds the text, for messages.
         * @throws InputError if the text is not a JSON object or a field has an invalid value.
         */
        fun fromJson(text: String, file: String, where: String): Record = try {
            val fields = JsonFields(parse(text, where))
            val input = fields.part("input")
            val output = fields.part("output")
            Record(
                name = fields.text("name") ?: file.removeSuffix(".tflite"),
                scheme = fields.text("scheme").orEmpty(),
                format = fields.text("format").orEmpty(),
                preprocessing = fields.part("preprocessing")?.let(::preprocessing),
                labels = fields.texts("labels"),
                input = if (input == null) InputRecord() else InputRecord(
                    tensor = tensor(input),
                    pixelOffset = input.int("pixel_offset", -MAX_OFFSET..MAX_OFFSET),
                    takesPixels = input.flag("takes_pixels"),
                ),
                output = if (output == null) OutputRecord() else OutputRecord(
                    tensor = tensor(output),
                    values = output.text("values") ?: OutputRecord.LOGITS,
                    activation = output.text("activation").orEmpty(),
                ),
                macs = fields.long("macs"),
                target = fields.text("target"),
                file = fields.text("file"),
                sha256 = fields.text("sha256"),
                sizeBytes = fields.long("size_bytes"),
            )
        } catch (error: InvalidField) {
            throw InputError("$where cannot be used: ${error.message}", error)
        }

        private fun lines(text: String, where: String): List<String> {
            val lines = text.removePrefix("\uFEFF").lines().map { it.trim() }.dropLastWhile { it.isEmpty() }
            if (lines.isEmpty() || '\u0000' in text) throw InputError("$where must be a text with one class name a line.")
            val empty = lines.indexOf("")
            if (empty >= 0) throw InputError("$where must have a class name in each line. Received: none in line ${empty + 1}")
            return lines
        }

        /** The record of another program's file. Without a resize rule it is the central square, bilinear, as in MediaPipe. */
        private fun fromStandardMetadata(file: String, model: TfliteFile): Record {
            val standard = model.standardMetadata()
            val shape = model.inputShape()
            val complete = shape != null && standard?.mean != null && standard.std != null
            return Record(
                name = file.removeSuffix(".tflite"),
                preprocessing = if (!complete) null else Preprocessing(
                    height = shape[1],
                    width = shape[2],
                    channels = shape[3],
                    interpolation = Interpolation.BILINEAR,
                    mean = perChannel(standard.mean, shape[3]),
                    std = perChannel(standard.std, shape[3]),
                ),
                labels = standard?.labels,
                output = OutputRecord(values = OutputRecord.PROBABILITIES),
            )
        }

        private fun perChannel(values: List<Float>, channels: Int) = if (values.size == 1) List(channels) { values[0] } else values

        private fun parse(text: String, where: String): JsonObject = try {
            Json.parseToJsonElement(text) as? JsonObject ?: throw InputError("$where must be a JSON object.")
        } catch (error: IllegalArgumentException) {
            throw InputError("$where is not valid JSON: ${error.reason()}", error)
        } catch (error: StackOverflowError) {
            throw InputError("$where is nested too deeply.", error)
        }

        private fun tensor(fields: JsonFields) = TensorRecord(
            name = fields.text("name").orEmpty(),
            shape = fields.ints("shape").orEmpty(),
            dtype = fields.text("dtype").orEmpty(),
            scale = fields.float("scale"),
            zeroPoint = fields.int("zero_point"),
        )

        private fun preprocessing(fields: JsonFields): Preprocessing {
            val size = fields.int("image_size") // of a square; the only size in older records
            val height = fields.int("height") ?: size ?: throw InvalidField("height", "a whole number", JsonNull)
            return Preprocessing(
                height = height,
                width = fields.int("width") ?: size ?: height,
                channels = fields.int("channels") ?: 3,
                resizeTo = fields.int("resize_to"),
                rule = fields.oneOf("rule", Rule.entries.associateBy { it.name.lowercase() }) ?: Rule.CROP_THEN_RESIZE,
                interpolation = fields.oneOf("interpolation", Interpolation.entries.associateBy { it.name.lowercase() })
                    ?: Interpolation.BICUBIC,
                mean = fields.floats("mean"),
                std = fields.floats("std"),
            )
        }

        private const val MAX_OFFSET = 1 shl 16

        /** The SHA-256 of a buffer's whole content, in hexadecimal. */
        fun sha256(content: ByteBuffer): String {
            val digest = MessageDigest.getInstance("SHA-256")
            digest.update(content.duplicate().apply { rewind() })
            return digest.digest().joinToString("") { "%02x".format(it) }
        }
    }
}

private class InvalidField(field: String, expected: String, received: JsonElement) :
    Exception("$field must be $expected. Received: ${received.toString().take(80)}")

/** Reads values of the expected types from a JSON object; null if a field is absent or null. Throws [InvalidField]. */
private class JsonFields(private val fields: JsonObject) {
    private fun get(name: String): JsonElement? = fields[name].takeUnless { it is JsonNull }

    fun text(name: String): String? = get(name)?.let { it.string() ?: throw InvalidField(name, "a string", it) }

    fun texts(name: String): List<String>? = list(name, "a list of strings") { it.string() }

    fun flag(name: String): Boolean? = get(name)?.let {
        when ((it as? JsonPrimitive)?.takeUnless { flag -> flag.isString }?.content) {
            "true" -> true
            "false" -> false
            else -> throw InvalidField(name, "true or false", it)
        }
    }

    fun long(name: String): Long? = get(name)?.let { it.whole() ?: throw InvalidField(name, "a whole number", it) }

    fun int(name: String, range: IntRange = -MAX_INT..MAX_INT): Int? = get(name)?.let {
        val number = it.whole() ?: throw InvalidField(name, "a whole number", it)
        if (number !in range) throw InvalidField(name, "a whole number from ${range.first} to ${range.last}", it)
        number.toInt()
    }

    fun ints(name: String): List<Int>? =
        list(name, "a list of whole numbers") { item -> item.whole()?.takeIf { it in -MAX_INT..MAX_INT }?.toInt() }

    fun float(name: String): Float? =
        get(name)?.let { it.number()?.toFloat()?.takeIf(Float::isFinite) ?: throw InvalidField(name, "a finite number", it) }

    fun floats(name: String): List<Float>? = list(name, "a list of numbers") { it.number()?.toFloat() }

    fun part(name: String): JsonFields? =
        get(name)?.let { JsonFields(it as? JsonObject ?: throw InvalidField(name, "an object", it)) }

    fun <T> oneOf(name: String, values: Map<String, T>): T? =
        get(name)?.let { values[it.string()] ?: throw InvalidField(name, "one of ${values.keys.joinToString()}", it) }

    private fun <T : Any> list(name: String, expected: String, item: (JsonElement) -> T?): List<T>? = get(name)?.let { list ->
        (list as? JsonArray)?.map { item(it) ?: throw InvalidField(name, expected, list) } ?: throw InvalidField(name, expected, list)
    }

    private fun JsonElement.string(): String? = (this as? JsonPrimitive)?.takeIf { it.isString }?.content

    private fun JsonElement.number(): Double? = (this as? JsonPrimitive)?.takeUnless { it.isString }?.content?.toDoubleOrNull()

    private fun JsonElement.whole(): Long? = number()?.takeIf { it == Math.rint(it) && it in -MAX_WHOLE..MAX_WHOLE }?.toLong()

    private companion object {
        const val MAX_INT = 2_000_000_000
        const val MAX_WHOLE = 9e15 // larger numbers are not exact as a double
    }
}
