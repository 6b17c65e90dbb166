package dev.edgecv.demo

import android.content.Context
import android.net.Uri
import android.provider.OpenableColumns
import dev.edgecv.core.InputError
import dev.edgecv.core.ModelSource
import dev.edgecv.core.mapped
import dev.edgecv.core.reason
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.io.InputStream
import java.io.OutputStream
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** The models in the app's assets and those that the user has added. */
object Models {
    private const val ASSETS = "models"
    private const val EXTENSION = ".tflite"
    private const val MAX_BYTES = 500_000_000L
    private const val MAX_NAME = 100

    fun all(context: Context): List<ModelSource> {
        val assets = context.assets.list(ASSETS).orEmpty().filter { it.endsWith(EXTENSION) }.map { AssetModel(context, it) }
        val added = folder(context).listFiles().orEmpty().filter { it.name.endsWith(EXTENSION) }.map { AddedModel(it) }
        return assets + added
    }

    /** Copies a file that the user chose into the app's storage, under a name of its own. Throws [InputError]. */
    fun add(context: Context, uri: Uri): ModelSource = readingFile(context, R.string.model_failed) {
        val folder = folder(context)
        val part = File.createTempFile("model", ".part", folder)
        try {
            val input = context.contentResolver.openInputStream(uri) ?: throw IOException("it cannot be opened")
            input.use { from -> part.outputStream().use { to -> copy(from, to) } }
            val file = freeName(folder, documentName(context, uri), part)
            if (!part.renameTo(file)) throw IOException("the copy cannot be renamed")
            AddedModel(file)
        } finally {
            part.delete()
        }
    }

    /** Renames a file that the user added. Throws [InputError]. */
    fun rename(context: Context, source: ModelSource, name: String): ModelSource = readingFile(context, R.string.rename_failed) {
        val folder = folder(context)
        val from = File(folder, source.file)
        val to = File(folder, fileName(name))
        if (to != from && to.exists()) throw IOException("there is a ${to.name} already")
        if (!from.renameTo(to)) throw IOException("${from.name} cannot be renamed")
        AddedModel(to)
    }

    /** Deletes a file that the user added. */
    fun delete(context: Context, source: ModelSource) {
        File(folder(context), source.file).delete()
    }

    private fun copy(from: InputStream, to: OutputStream) {
        val part = ByteArray(1 shl 16)
        var total = 0L
        while (true) {
            val count = from.read(part)
            if (count < 0) return
            total += count
            if (total > MAX_BYTES) throw IOException("it is larger than ${MAX_BYTES / 1_000_000} MB")
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

        override fun sidecar(): String? = null
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
