package dev.edgecv.demo

import android.content.Context
import android.net.Uri
import android.provider.OpenableColumns
import dev.edgecv.core.InputError
import dev.edgecv.core.ModelSource
import dev.edgecv.core.Record
import dev.edgecv.core.mapped
import dev.edgecv.core.reason
import dev.edgecv.core.writeWhole
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.util.Locale

/** The models in the app's assets and those that the user has added, each of the latter with its sidecar and its labels, if there are any. */
object Models {
    private const val ASSETS = "models"
    private const val EXTENSION = ".tflite"
    private const val SIDECAR = ".json"
    private const val LABELS = ".txt"
    private const val MAX_BYTES = 500_000_000L
    private const val MAX_TEXT_BYTES = 10_000_000L
    private const val MAX_NAME = 100

    fun all(context: Context): List<ModelSource> {
        val assets = context.assets.list(ASSETS).orEmpty().filter { it.endsWith(EXTENSION) }.map { AssetModel(context, it) }
        val added = folder(context).listFiles().orEmpty().filter { it.name.endsWith(EXTENSION) }.map { AddedModel(it) }
        return assets + added
    }

    /**
     * Copies files that the user chose into the app's storage: a model, under a name of its own, with its sidecar and its labels; or a
     * sidecar and labels for the chosen model. Nothing is kept where they do not go together.
     *
     * @param uris one model, one `.json` and one `.txt` at most.
     * @param chosen the model of a sidecar or of labels that come alone.
     * @throws InputError with the reason.
     */
    fun add(context: Context, uris: List<Uri>, chosen: ModelSource?): ModelSource = readingFile(context, R.string.model_failed) {
        val folder = folder(context)
        val files = uris.groupBy { kind(documentName(context, it)) }
        for ((kind, same) in files) if (same.size > 1) throw IOException("choose one $kind file at a time. Received: ${same.size}")
        val texts = listOf(SIDECAR, LABELS).associateWith { kind -> files[kind]?.let { text(context, it.single()) } }
        val model = files[EXTENSION]?.single()
        if (model == null) {
            if (chosen?.added != true) throw IOException("a sidecar and labels need a model that you have opened; choose it first, or all files at once")
            keep(File(folder, chosen.file), texts)
            return@readingFile AddedModel(File(folder, chosen.file))
        }
        val part = File.createTempFile("model", ".part", folder)
        try {
            opened(context, model).use { from -> part.outputStream().use { to -> copy(from, to, MAX_BYTES) } }
            val file = freeName(folder, documentName(context, model), part)
            check(file.name, part, texts)
            if (!part.renameTo(file)) throw IOException("the copy cannot be renamed")
            keep(file, texts)
            AddedModel(file)
        } finally {
            part.delete()
        }
    }

    private fun kind(name: String): String = listOf(SIDECAR, LABELS).firstOrNull { name.lowercase(Locale.ROOT).endsWith(it) } ?: EXTENSION

    private fun opened(context: Context, uri: Uri): InputStream =
        context.contentResolver.openInputStream(uri) ?: throw IOException("it cannot be opened")

    private fun text(context: Context, uri: Uri): String {
        val bytes = ByteArrayOutputStream()
        opened(context, uri).use { copy(it, bytes, MAX_TEXT_BYTES) }
        return bytes.toString("UTF-8")
    }

    /** Throws [InputError] if a sidecar or labels do not belong to the model. */
    private fun check(name: String, content: File, texts: Map<String, String?>) {
        if (texts.values.any { it != null }) Record.read(name, mapped(content, "the model"), texts[SIDECAR], texts[LABELS])
    }

    /** Stores the texts beside a model, after a check. */
    private fun keep(model: File, texts: Map<String, String?>) {
        check(model.name, model, texts)
        for ((kind, text) in texts) if (text != null) writeWhole(beside(model, kind), text)
    }

    private fun beside(model: File, kind: String) = File(model.path.removeSuffix(EXTENSION) + kind)

    /** Renames a file that the user added, with its sidecar and labels. Throws [InputError]. */
    fun rename(context: Context, source: ModelSource, name: String): ModelSource = readingFile(context, R.string.rename_failed) {
        val folder = folder(context)
        val from = File(folder, source.file)
        val to = File(folder, fileName(name))
        if (to != from && to.exists()) throw IOException("there is a ${to.name} already")
        if (!from.renameTo(to)) throw IOException("${from.name} cannot be renamed")
        for (kind in listOf(SIDECAR, LABELS)) beside(from, kind).renameTo(beside(to, kind))
        AddedModel(to)
    }

    /** Deletes a file that the user added, with its sidecar and labels. */
    fun delete(context: Context, source: ModelSource) {
        val model = File(folder(context), source.file)
        for (kind in listOf(EXTENSION, SIDECAR, LABELS)) beside(model, kind).delete()
    }

    private fun copy(from: InputStream, to: OutputStream, maxBytes: Long) {
        val part = ByteArray(1 shl 16)
        var total = 0L
        while (true) {
            val count = from.read(part)
            if (count < 0) return
            total += count
            if (total > maxBytes) throw IOException("it is larger than ${maxBytes / 1_000_000} MB")
            to.write(part, 0, count)
        }
    }

    private fun folder(context: Context) = File(context.filesDir, ASSETS).apply { mkdirs() }

    private fun fileName(text: String) =
        text.replace(Regex("[^A-Za-z0-9._-]"), "_").removeSuffix(EXTENSION).trimStart('.').take(MAX_NAME).ifEmpty { "model" } + EXTENSION

    /** The first of NAME, NAME-2, NAME-3, ... that is free or holds the same bytes. */
    private fun freeName(folder: File, name: String, content: File): File {
        val stem = fileName(name).removeSuffix(EXTENSION)
        val names = generateSequence(1) { it + 1 }.map { File(folder, if (it == 1) stem + EXTENSION else "$stem-$it$EXTENSION") }
        return names.first { !it.exists() || isSame(it, content) }
    }

    private fun isSame(one: File, other: File) =
        one.length() == other.length() && (one.length() == 0L || mapped(one, "the model") == mapped(other, "the model"))

    /** The document's name; a provider may refuse to tell it, with any exception. */
    private fun documentName(context: Context, uri: Uri): String {
        val columns = arrayOf(OpenableColumns.DISPLAY_NAME)
        val named = try {
            context.contentResolver.query(uri, columns, null, null, null)?.use { rows ->
                if (rows.moveToFirst()) rows.getString(0) else null
            }
        } catch (_: RuntimeException) {
            null
        }
        return named ?: uri.lastPathSegment ?: "model"
    }

    private class AssetModel(private val context: Context, override val file: String) : ModelSource {
        override fun content(): ByteBuffer = readingFile(context, R.string.model_failed) {
            context.assets.openFd("$ASSETS/$file").use { asset ->
                FileInputStream(asset.fileDescriptor).channel.use {
                    it.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
                }
            }
        }

        override fun sidecar(): String? = try {
            context.assets.open("$ASSETS/${file.removeSuffix(EXTENSION)}.json").use { it.readBytes().decodeToString() }
        } catch (_: IOException) {
            null
        }
    }

    private class AddedModel(private val path: File) : ModelSource {
        override val file: String = path.name
        override val added = true
        override val changedMs get() = path.lastModified()

        override fun content(): ByteBuffer = mapped(path, "the model")

        override fun sidecar() = beside(path, SIDECAR).textOrNull()

        override fun labels() = beside(path, LABELS).textOrNull()

        private fun File.textOrNull() = try {
            if (isFile) readText() else null
        } catch (error: IOException) {
            throw InputError("$name cannot be read: ${error.reason()}", error)
        }
    }
}

/**
 * Runs work that reads a file of the user. Providers of documents throw any exception through the system.
 *
 * @param message a string with one argument, the reason.
 * @throws InputError with that message.
 */
internal fun <T> readingFile(context: Context, message: Int, work: () -> T): T = try {
    work()
} catch (error: InputError) {
    throw error
} catch (error: IOException) {
    throw InputError(context.getString(message, error.reason()), error)
} catch (error: RuntimeException) {
    throw InputError(context.getString(message, error.reason()), error)
}
