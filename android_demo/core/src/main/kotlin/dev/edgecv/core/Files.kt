package dev.edgecv.core

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/**
 * A file's bytes, mapped into memory, so that a large model takes none of the app's heap.
 *
 * @param role what the file is, for messages.
 * @throws InputError if the file does not exist or cannot be mapped.
 */
fun mapped(file: File, role: String): ByteBuffer {
    if (!file.isFile) throw InputError("${file.name}, $role, does not exist.")
    try {
        return file.inputStream().channel.use { channel ->
            if (channel.size() > Int.MAX_VALUE) throw InputError("${file.name} is larger than 2 GiB.")
            channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size())
        }
    } catch (error: IOException) {
        throw InputError("${file.name} cannot be read: ${error.reason()}", error)
    }
}

/** Writes a temporary file and renames it, so that a reader never sees a part of it. Throws [InputError]. */
fun writeWhole(file: File, text: String) {
    val part = File(file.path + ".part")
    try {
        part.writeText(text)
        if (!part.renameTo(file)) throw IOException("cannot rename the temporary file")
    } catch (error: IOException) {
        part.delete()
        throw InputError("${file.name} cannot be written: ${error.reason()}", error)
    }
}
