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
 * What a model's file says of itself: all that the app knows of it.
 *
 * @property name the network's name, alike for its float and its int8 file.
 * @property scheme how it is quantized: `float32`, `int8`, ...; empty where the file does not say.
 * @property preprocessing null where neither file nor sidecar says; then the model cannot be fed.
 * @property pixelOffset see [InputWriter].
 * @property labels class names in the order of the outputs; null where none are given.
 * @property logits whether the outputs are logits, of which softmax makes probabilities.
 */
data class Artifact(
    val name: String,
    val scheme: String,
    val preprocessing: Preprocessing?,
    val pixelOffset: Int?,
    val labels: List<String>?,
    val logits: Boolean,
) {
    companion object {
        /**
         * Reads the sidecar, or without one the record inside the file, or the metadata that other programs write.
         *
         * @param file the model's name, for messages and where nothing else names it.
         * @param content the model's bytes.
         * @param sidecar the text of `<stem>.json`, or null.
         */
        fun read(file: String, content: ByteBuffer, sidecar: String?): Artifact {
            val model = TfliteFile(content)
            if (sidecar != null) {
                val record = record(sidecar, "The sidecar of $file")
                val expected = record["sha256"]
                if (expected != null && expected.string() != sha256(content)) {
                    throw InputError("The sidecar of $file belongs to another file: its SHA-256 is not this file's.")
                }
                return of(file, record, "The sidecar of $file")
            }
            model.ownRecord()?.let { return of(file, record(it, "The metadata of $file"), "The metadata of $file") }
            return strangers(file, model)
        }

        /** Of a file without our record: where no resize is said, the whole square, bilinear, as MediaPipe does. */
        private fun strangers(file: String, model: TfliteFile): Artifact {
            val standard = model.standardMetadata()
            val size = model.inputSize()
            val known = size != null && standard?.mean != null && standard.std != null
            return Artifact(
                name = file.removeSuffix(".tflite"),
                scheme = "",
                preprocessing = if (!known) null else Preprocessing(
                    imageSize = size,
                    interpolation = Interpolation.BILINEAR,
                    mean = threeOf(standard.mean),
                    std = threeOf(standard.std),
                ),
                pixelOffset = null,
                labels = standard?.labels,
                logits = false,
            )
        }

        private fun threeOf(values: List<Float>) = if (values.size == 1) List(3) { values[0] } else values

        private fun record(text: String, what: String): JsonObject = try {
            Json.parseToJsonElement(text) as? JsonObject ?: throw InputError("$what must be a JSON object.")
        } catch (error: IllegalArgumentException) {
            throw InputError("$what is no valid JSON: ${error.reason()}", error)
        } catch (error: StackOverflowError) {
            throw InputError("$what is nested too deeply.", error)
        }

        private fun of(file: String, record: JsonObject, what: String): Artifact = try {
            val output = record.part("output")
            val labels = record.field("labels")?.let { list ->
                (list as? JsonArray)?.map { it.string() ?: throw Unfit("labels", "a list of strings", list) }
                    ?: throw Unfit("labels", "a list of strings", list)
            }
            Artifact(
                name = record.text("name") ?: file.removeSuffix(".tflite"),
                scheme = record.text("scheme") ?: "",
                preprocessing = record.part("preprocessing")?.let(::preprocessing),
                pixelOffset = record.part("input")?.whole("pixel_offset")?.also {
                    if (it !in -255..255) throw Unfit("pixel_offset", "a whole number from -255 to 255", JsonPrimitive(it))
                },
                labels = labels,
                logits = output?.text("values") != "probabilities",
            )
        } catch (error: Unfit) {
            throw InputError("$what cannot be used: ${error.message}", error)
        }

        private fun preprocessing(fields: JsonObject): Preprocessing {
            val size = fields.whole("image_size") ?: throw Unfit("image_size", "a whole number", JsonNull)
            return Preprocessing(
                imageSize = size,
                resizeTo = fields.whole("resize_to") ?: size,
                rule = fields.one("rule", Rule.entries.associateBy { it.name.lowercase() }) ?: Rule.CROP_THEN_RESIZE,
                interpolation = fields.one("interpolation", Interpolation.entries.associateBy { it.name.lowercase() })
                    ?: Interpolation.BICUBIC,
                mean = fields.floats("mean") ?: listOf(0f, 0f, 0f),
                std = fields.floats("std") ?: listOf(1f, 1f, 1f),
            )
        }

        fun sha256(content: ByteBuffer): String {
            val digest = MessageDigest.getInstance("SHA-256")
            digest.update(content.duplicate().apply { rewind() })
            return digest.digest().joinToString("") { "%02x".format(it) }
        }
    }
}

private class Unfit(field: String, wanted: String, received: JsonElement) :
    Exception("$field must be $wanted. Received: ${received.toString().take(80)}")

private fun JsonElement.string(): String? = (this as? JsonPrimitive)?.takeIf { it.isString }?.content

private fun JsonObject.field(name: String): JsonElement? = this[name].takeUnless { it is JsonNull }

private fun JsonObject.text(name: String): String? =
    field(name)?.let { it.string() ?: throw Unfit(name, "a string", it) }

private fun JsonObject.part(name: String): JsonObject? =
    field(name)?.let { it as? JsonObject ?: throw Unfit(name, "an object", it) }

private fun JsonElement.number(name: String): Double =
    (this as? JsonPrimitive)?.takeUnless { it.isString }?.content?.toDoubleOrNull() ?: throw Unfit(name, "a number", this)

private fun JsonObject.whole(name: String): Int? = field(name)?.let {
    val number = it.number(name)
    if (number != Math.rint(number) || number !in -2e9..2e9) throw Unfit(name, "a whole number", it)
    number.toInt()
}

private fun JsonObject.floats(name: String): List<Float>? = field(name)?.let { list ->
    (list as? JsonArray)?.map { it.number(name).toFloat() } ?: throw Unfit(name, "a list of numbers", list)
}

private fun <T> JsonObject.one(name: String, known: Map<String, T>): T? = field(name)?.let {
    known[it.string()] ?: throw Unfit(name, "one of ${known.keys.joinToString()}", it)
}
