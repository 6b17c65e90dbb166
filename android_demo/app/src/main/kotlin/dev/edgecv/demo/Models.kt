package dev.edgecv.demo

import android.content.Context
import android.net.Uri
import android.provider.OpenableColumns
import dev.edgecv.core.Benchmark
import dev.edgecv.core.InputError
import dev.edgecv.core.ModelSource
import dev.edgecv.core.reason
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** The models in the app's assets and those that the user has opened. */
object Models {
    private const val ASSETS = "models"
    private const val EXTENSION = ".tflite"
    private const val MAX_BYTES = 500_000_000L

    fun all(context: Context): List<ModelSource> {
        val assets = context.assets.list(ASSETS).orEmpty().filter { it.endsWith(EXTENSION) }.map { AssetModel(context, it) }
        val opened = folder(context).listFiles().orEmpty().filter { it.name.endsWith(EXTENSION) }.map { FileModel(it) }
        return assets + opened
    }

    /** Copies a file that the user chose into the app's storage. Throws [InputError]. */
    fun add(context: Context, uri: Uri): ModelSource {
        val name = fileName(context, uri).replace(Regex("[^A-Za-z0-9._-]"), "_").removeSuffix(EXTENSION).take(100) + EXTENSION
        val file = File(folder(context), name)
        val part = File(folder(context), "$name.part")
        try {
            val input = context.contentResolver.openInputStream(uri) ?: throw IOException("it cannot be opened")
            input.use { from -> part.outputStream().use { to -> copy(from, to) } }
            if (!part.renameTo(file)) throw IOException("the copy cannot be renamed")
        } catch (error: IOException) {
            throw InputError(context.getString(R.string.model_failed, error.reason()), error)
        } catch (error: SecurityException) {
            throw InputError(context.getString(R.string.model_failed, error.reason()), error)
        } finally {
            part.delete()
        }
        return FileModel(file)
    }

    private fun copy(from: java.io.InputStream, to: java.io.OutputStream) {
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

    private fun fileName(context: Context, uri: Uri): String {
        val columns = arrayOf(OpenableColumns.DISPLAY_NAME)
        val named = context.contentResolver.query(uri, columns, null, null, null)?.use { rows ->
            if (rows.moveToFirst()) rows.getString(0) else null
        }
        return named ?: uri.lastPathSegment ?: "model"
    }

    private class AssetModel(private val context: Context, override val file: String) : ModelSource {
        override fun content(): ByteBuffer = try {
            context.assets.openFd("$ASSETS/$file").use { asset ->
                FileInputStream(asset.fileDescriptor).channel.use {
                    it.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
                }
            }
        } catch (error: IOException) {
            throw InputError(context.getString(R.string.model_failed, error.reason()), error)
        }

        override fun sidecar(): String? = try {
            context.assets.open("$ASSETS/${file.removeSuffix(EXTENSION)}.json").use { it.readBytes().decodeToString() }
        } catch (_: IOException) {
            null
        }
    }

    private class FileModel(private val path: File) : ModelSource {
        override val file: String = path.name

        override fun content(): ByteBuffer = Benchmark.readDirect(path, "the model")

        override fun sidecar(): String? = null
    }
}
