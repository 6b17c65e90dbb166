package dev.edgecv.core

import java.io.ByteArrayOutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.DataFormatException
import java.util.zip.Inflater

/**
 * The metadata of a TFLite file: edge_cv's record, the standard metadata, and the label file in the zip archive at its end.
 *
 * Only offsets within the file are followed; the runtime checks the network itself.
 * Schema: https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata/metadata_schema.fbs
 */
class TfliteFile(content: ByteBuffer) {
    private val content = content.duplicate().order(ByteOrder.LITTLE_ENDIAN).apply { rewind() }

    init {
        val mark = ByteArray(4)
        if (this.content.limit() >= 8) {
            for (i in 0 until 4) mark[i] = this.content.get(4 + i)
        }
        if (!mark.contentEquals("TFL3".toByteArray())) throw InputError("This is not a TFLite file: it lacks the identifier TFL3.")
    }

    /** edge_cv's record as JSON; null if there is none. */
    fun embeddedRecord(): String? = metadata(RECORD_NAME)?.let { String(it.bytes(), Charsets.UTF_8) }

    /** The image input's normalization and the labels; null if the file has no standard metadata. */
    fun standardMetadata(): StandardMetadata? = metadata(STANDARD_NAME)?.let { metadata ->
        readOrThrow {
            val graph = metadata.root().vector(DESCRIBED_GRAPHS).firstOrNull() ?: return@readOrThrow null
            val input = graph.vector(DESCRIBED_INPUTS).firstOrNull()
            val output = graph.vector(DESCRIBED_OUTPUTS).firstOrNull()
            val normalization = input?.vector(DESCRIBED_UNITS)?.firstOrNull { it.byte(UNIT_TYPE) == NORMALIZATION }?.table(UNIT_OPTIONS)
            val labels = output?.vector(DESCRIBED_FILES)?.firstOrNull { it.byte(FILE_TYPE) == AXIS_LABELS }?.string(FILE_NAME)
            StandardMetadata(normalization?.floats(0), normalization?.floats(1), labels?.let(::zippedLines))
        }
    }

    /** The shape of the input, (1, height, width, channels); null if the input is not an image. */
    fun inputShape(): List<Int>? = readOrThrow {
        val graph = FlatBytes(content, 0, content.limit()).root().vector(MODEL_GRAPHS).firstOrNull()
        val input = graph?.ints(GRAPH_INPUTS)?.firstOrNull()
        val shape = input?.let { graph.vector(GRAPH_TENSORS).getOrNull(it) }?.ints(TENSOR_SHAPE)
        shape?.takeIf { it.size == 4 && (it[3] == 1 || it[3] == 3) }
    }

    private fun metadata(name: String): FlatBytes? = readOrThrow {
        val model = FlatBytes(content, 0, content.limit()).root()
        val entry = model.vector(MODEL_METADATA).firstOrNull { it.string(METADATA_NAME) == name } ?: return@readOrThrow null
        model.vector(MODEL_BUFFERS).getOrNull(entry.int(METADATA_BUFFER))?.bytes(BUFFER_DATA)
    }

    /** The lines of a text file in the zip archive behind the model; null if it does not exist. */
    private fun zippedLines(name: String): List<String>? {
        val end = (content.limit() - ZIP_END_BYTES downTo maxOf(0, content.limit() - ZIP_END_BYTES - 0xffff))
            .firstOrNull { content.getInt(it) == ZIP_END } ?: return null
        val files = content.getShort(end + 10).toInt() and 0xffff
        val directoryBytes = content.getInt(end + 12)
        val before = end - directoryBytes - content.getInt(end + 16) // the bytes before the archive: zip offsets start there
        var at = end - directoryBytes
        repeat(files) {
            val method = content.getShort(at + 10).toInt()
            val packedBytes = content.getInt(at + 20)
            val nameBytes = content.getShort(at + 28).toInt() and 0xffff
            val rest = (content.getShort(at + 30).toInt() and 0xffff) + (content.getShort(at + 32).toInt() and 0xffff)
            if (String(slice(at + 46, nameBytes), Charsets.UTF_8) == name) {
                val local = before + content.getInt(at + 42)
                val data = local + 30 + (content.getShort(local + 26).toInt() and 0xffff) + (content.getShort(local + 28).toInt() and 0xffff)
                val packed = slice(data, packedBytes)
                val text = when (method) {
                    0 -> packed
                    8 -> inflated(packed)
                    else -> throw InputError("The file's labels use an unsupported zip compression method: $method.")
                }
                return String(text, Charsets.UTF_8).lines().dropLastWhile { it.isEmpty() }
            }
            at += 46 + nameBytes + rest
        }
        return null
    }

    private fun slice(at: Int, size: Int): ByteArray = FlatBytes(content, at, size).bytes()

    private fun inflated(packed: ByteArray): ByteArray {
        val inflater = Inflater(true)
        try {
            inflater.setInput(packed)
            val result = ByteArrayOutputStream()
            val part = ByteArray(8192)
            while (!inflater.finished()) {
                val count = inflater.inflate(part)
                if (count == 0 && (inflater.needsInput() || inflater.needsDictionary())) throw DataFormatException("unexpected end of data")
                result.write(part, 0, count)
                if (result.size() > MAX_LABEL_BYTES) throw DataFormatException("the text is too large")
            }
            return result.toByteArray()
        } finally {
            inflater.end()
        }
    }

    private fun <T> readOrThrow(read: () -> T): T = try {
        read()
    } catch (error: IndexOutOfBoundsException) {
        throw InputError("The file's metadata is invalid: an offset points outside the file.", error)
    } catch (error: DataFormatException) {
        throw InputError("The file's labels cannot be decompressed: ${error.reason()}.", error)
    }

    private companion object {
        const val RECORD_NAME = "EDGE_CV_METADATA"
        const val STANDARD_NAME = "TFLITE_METADATA"
        const val MAX_LABEL_BYTES = 10_000_000
        const val ZIP_END = 0x06054b50
        const val ZIP_END_BYTES = 22

        // Slots of the tables Model, SubGraph, Tensor, Metadata and Buffer of the TFLite schema.
        const val MODEL_GRAPHS = 2
        const val GRAPH_TENSORS = 0
        const val GRAPH_INPUTS = 1
        const val TENSOR_SHAPE = 0
        const val MODEL_BUFFERS = 4
        const val MODEL_METADATA = 6
        const val METADATA_NAME = 0
        const val METADATA_BUFFER = 1
        const val BUFFER_DATA = 0

        // Slots of the metadata schema: ModelMetadata, SubGraphMetadata, TensorMetadata, ProcessUnit, AssociatedFile.
        const val DESCRIBED_GRAPHS = 3
        const val DESCRIBED_INPUTS = 2
        const val DESCRIBED_OUTPUTS = 3
        const val DESCRIBED_UNITS = 4
        const val DESCRIBED_FILES = 6
        const val UNIT_TYPE = 0
        const val UNIT_OPTIONS = 1
        const val NORMALIZATION = 1
        const val FILE_NAME = 0
        const val FILE_TYPE = 2
        const val AXIS_LABELS = 2
    }
}

/** The metadata that MediaPipe and the TFLite Task Library read: `(pixel - mean) / std` and the labels; null if absent. */
class StandardMetadata(val mean: List<Float>?, val std: List<Float>?, val labels: List<String>?)

private const val MAX_BYTES = 1 shl 24 // of a record or a text, as in converters/record.py
private const val MAX_ITEMS = 1_000_000 // of a list; a network has some hundred tensors

/** A part of a flatbuffer; a read outside of it throws IndexOutOfBoundsException. */
private class FlatBytes(private val content: ByteBuffer, private val begin: Int, private val size: Int) {
    init {
        if (begin < 0 || size < 0 || begin.toLong() + size > content.limit()) throw IndexOutOfBoundsException("$begin + $size")
    }

    fun bytes() = ByteArray(if (size <= MAX_BYTES) size else throw IndexOutOfBoundsException("$size bytes")).also { content.duplicate().apply { position(begin) }.get(it) }

    fun root(): FlatTable {
        val part = content.duplicate().apply { position(begin); limit(begin + size) }.slice().order(ByteOrder.LITTLE_ENDIAN)
        return FlatTable(part, part.getInt(0))
    }
}

private class FlatTable(private val content: ByteBuffer, private val at: Int) {
    private fun place(slot: Int): Int? {
        val offsets = at - content.getInt(at)
        val known = content.getShort(offsets).toInt() and 0xffff
        if (4 + 2 * slot + 2 > known) return null
        val offset = content.getShort(offsets + 4 + 2 * slot).toInt() and 0xffff
        return if (offset == 0) null else at + offset
    }

    private fun target(slot: Int): Int? = place(slot)?.let { it + content.getInt(it) }

    fun int(slot: Int) = place(slot)?.let { content.getInt(it) } ?: 0

    fun byte(slot: Int) = place(slot)?.let { content.get(it).toInt() } ?: 0

    fun table(slot: Int) = target(slot)?.let { FlatTable(content, it) }

    fun bytes(slot: Int) = target(slot)?.let { FlatBytes(content, it + 4, content.getInt(it)) }

    fun string(slot: Int) = bytes(slot)?.let { String(it.bytes(), Charsets.UTF_8) }

    fun vector(slot: Int): List<FlatTable> = items(slot, 4) { FlatTable(content, it + content.getInt(it)) }

    fun ints(slot: Int): List<Int> = items(slot, 4) { content.getInt(it) }

    fun floats(slot: Int): List<Float> = items(slot, 4) { content.getFloat(it) }

    private fun <T> items(slot: Int, bytes: Int, read: (Int) -> T): List<T> {
        val start = target(slot) ?: return emptyList()
        val count = content.getInt(start)
        if (count < 0 || count > minOf(MAX_ITEMS, (content.limit() - start) / bytes)) throw IndexOutOfBoundsException("$count items")
        return (0 until count).map { read(start + 4 + bytes * it) }
    }
}
