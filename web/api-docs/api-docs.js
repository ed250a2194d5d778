// Shows the API document of this hub. The address is relative: the hub may be mounted below any path.
window.SwaggerUIBundle({ url: '../openapi.json', dom_id: '#api-docs', deepLinking: true, docExpansion: 'none', validatorUrl: null })
