package dev.edgecv.demo

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException

/** Lets another app read a file that the user shares with it. Nothing else is accessible, and nothing can be changed. */
class SharedFiles : ContentProvider() {
    override fun onCreate() = true

    override fun getType(uri: Uri): String? = TYPES[uri.lastPathSegment]

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        val file = found(uri)
        if (file == null || mode != "r") throw FileNotFoundException("only shared files can be read. Received: $uri, $mode")
        return ParcelFileDescriptor.open(file, ParcelFileDescriptor.MODE_READ_ONLY)
    }

    override fun query(uri: Uri, columns: Array<String>?, selection: String?, arguments: Array<String>?, order: String?): Cursor {
        val known = arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE)
        val rows = MatrixCursor(columns?.filter { it in known }?.toTypedArray() ?: known)
        val file = found(uri) ?: return rows
        val row = rows.newRow()
        for (column in rows.columnNames) row.add(column, if (column == OpenableColumns.SIZE) file.length() else file.name)
        return rows
    }

    private fun found(uri: Uri): File? {
        val name = uri.lastPathSegment?.takeIf { it in TYPES } ?: return null
        return context?.let { file(it, name) }?.takeIf { it.isFile }
    }

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun delete(uri: Uri, selection: String?, arguments: Array<String>?) = 0

    override fun update(uri: Uri, values: ContentValues?, selection: String?, arguments: Array<String>?) = 0

    companion object {
        private const val AUTHORITY = "dev.edgecv.demo.shared"
        private val TYPES = mapOf("measurement.json" to "application/json", "edge_cv.png" to "image/png")

        fun file(context: Context, name: String) = File(File(context.cacheDir, "shared").apply { mkdirs() }, name)

        fun uri(name: String): Uri = Uri.Builder().scheme("content").authority(AUTHORITY).appendPath(name).build()
    }
}
