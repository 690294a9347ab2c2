//! `rachis.v1.Catalog`: lists and changes collections and sources.

use std::sync::Arc;

use proto::{
    CollectionName, Problem, SourceName,
    catalog::{Change, Collection, Definition, DefinitionId, DefinitionVersion, Source, SourceSettings, Start},
    record::{Format, Rules},
    wire::v1::{self as wire, catalog_server},
};
use tonic::{Request, Response, Status};

use super::non_empty;
use crate::{
    definition_file::{self, Step},
    doors::{
        collections,
        names::{collection_name, find_collection, find_source, source_name},
        source_config, sources,
    },
    query::Engine,
};

/// The catalog service of an aggregator.
pub(super) struct CatalogService {
    pub engine: Arc<Engine>,
}

fn wire_collection(name: &CollectionName, collection: &Collection) -> wire::Collection {
    wire::Collection {
        name: name.to_string(),
        uid: collection.uid.to_string(),
        shards: collection.settings.shards,
        time_path: collection.settings.time_path.clone().unwrap_or_default(),
        version: collection.version,
        retention: collection
            .settings
            .retention
            .as_ref()
            .map(|kept| kept.as_str().to_owned())
            .unwrap_or_default(),
        warnings: Vec::new(),
        replicas: collection.settings.replicas.unwrap_or_default(),
    }
}

fn wire_source(name: &SourceName, source: &Source) -> wire::Source {
    wire::Source {
        name: name.to_string(),
        collection: source.settings.collection.to_string(),
        topic: source.settings.topic.clone(),
        config: source_config::redacted(&source.settings.config)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        suspended: source.suspended,
        version: source.version,
    }
}

fn source_settings(request: wire::PutSourceRequest) -> Result<SourceSettings, Problem> {
    Ok(SourceSettings {
        collection: collection_name(&request.collection)?,
        topic: request.topic,
        config: request.config.into_iter().collect(),
        rules: Rules {
            format: if request.text { Format::Text } else { Format::Json },
            key: non_empty(request.key).map(Into::into),
        },
        start: if request.latest { Start::Latest } else { Start::Earliest },
        partitions: None,
        ends: Vec::new(),
    })
}

#[tonic::async_trait]
impl catalog_server::Catalog for CatalogService {
    async fn list_collections(
        &self,
        _: Request<wire::ListCollectionsRequest>,
    ) -> Result<Response<wire::ListCollectionsAnswer>, Status> {
        let catalog = self.engine.catalog();
        let collections = catalog
            .collections
            .iter()
            .map(|(name, collection)| wire_collection(name, collection))
            .collect();
        Ok(Response::new(wire::ListCollectionsAnswer { collections }))
    }

    async fn put_collection(
        &self,
        request: Request<wire::PutCollectionRequest>,
    ) -> Result<Response<wire::Collection>, Status> {
        let request = request.into_inner();
        let name = collection_name(&request.name)?;
        let put = collections::PutCollection {
            shards: (request.shards > 0).then_some(request.shards),
            replicas: (request.replicas > 0).then_some(request.replicas),
            time_path: request.time_path.map(non_empty),
            retention: request.retention.map(non_empty),
        };
        let collections::PutResult { catalog, warning, .. } = collections::upsert(&self.engine, &name, put).await?;
        let collection = find_collection(&catalog, &name)?;
        Ok(Response::new(wire::Collection {
            warnings: warning.into_iter().collect(),
            ..wire_collection(&name, collection)
        }))
    }

    async fn drop_collection(
        &self,
        request: Request<wire::DropCollectionRequest>,
    ) -> Result<Response<wire::Dropped>, Status> {
        let name = collection_name(&request.into_inner().name)?;
        self.engine.change_catalog(Change::DropCollection { name }).await?;
        Ok(Response::new(wire::Dropped {}))
    }

    async fn list_sources(
        &self,
        _: Request<wire::ListSourcesRequest>,
    ) -> Result<Response<wire::ListSourcesAnswer>, Status> {
        let catalog = self.engine.catalog();
        Ok(Response::new(wire::ListSourcesAnswer {
            sources: catalog
                .sources
                .iter()
                .map(|(name, source)| wire_source(name, source))
                .collect(),
        }))
    }

    async fn put_source(&self, request: Request<wire::PutSourceRequest>) -> Result<Response<wire::Source>, Status> {
        let request = request.into_inner();
        let name = source_name(&request.name)?;
        let settings = source_settings(request)?;
        let (_, catalog) = sources::upsert(&self.engine, &name, settings).await?;
        self.source_response(&name, &catalog)
    }

    async fn drop_source(&self, request: Request<wire::DropSourceRequest>) -> Result<Response<wire::Dropped>, Status> {
        let name = source_name(&request.into_inner().name)?;
        self.engine.change_catalog(Change::DropSource { name }).await?;
        Ok(Response::new(wire::Dropped {}))
    }

    async fn suspend_source(
        &self,
        request: Request<wire::SuspendSourceRequest>,
    ) -> Result<Response<wire::Source>, Status> {
        let request = request.into_inner();
        let name = source_name(&request.name)?;
        let change = Change::SuspendSource {
            name: name.clone(),
            suspended: request.suspended,
        };
        let catalog = self.engine.change_catalog(change).await?;
        self.source_response(&name, &catalog)
    }

    async fn list_definitions(
        &self,
        _: Request<wire::ListDefinitionsRequest>,
    ) -> Result<Response<wire::ListDefinitionsAnswer>, Status> {
        let catalog = self.engine.catalog();
        let versions = |(id, definition): (&DefinitionId, &Definition)| -> Vec<wire::DefinitionVersion> {
            let version = |version| wire_version(id, definition, version);
            definition.versions.iter().map(version).collect()
        };
        let versions = catalog.definitions.iter().flat_map(versions).collect();
        Ok(Response::new(wire::ListDefinitionsAnswer { versions }))
    }

    async fn export_definitions(
        &self,
        _: Request<wire::ExportDefinitionsRequest>,
    ) -> Result<Response<wire::DefinitionFile>, Status> {
        let text = definition_file::export(&self.engine.catalog());
        Ok(Response::new(wire::DefinitionFile { text }))
    }

    async fn apply_definitions(
        &self,
        request: Request<wire::ApplyDefinitionsRequest>,
    ) -> Result<Response<wire::AppliedDefinitions>, Status> {
        let request = request.into_inner();
        let author = non_empty(request.author);
        let applied = self.engine.apply_definitions(request.file, author, request.dry_run);
        let steps = applied.await?;
        let change = |step: Step| wire::DefinitionChange {
            definition: step.definition,
            action: step.action,
            statement: step.statement,
        };
        let changes = steps.into_iter().map(change).collect();
        Ok(Response::new(wire::AppliedDefinitions { changes }))
    }
}

fn wire_version(id: &DefinitionId, definition: &Definition, version: &DefinitionVersion) -> wire::DefinitionVersion {
    wire::DefinitionVersion {
        kind: id.kind.as_str().to_owned(),
        collection: id.collection.as_ref().map(ToString::to_string).unwrap_or_default(),
        name: id.name.clone(),
        version: version.number,
        tags: definition.tags_of(version.number).map(str::to_owned).collect(),
        statement: version.statement(id),
        author: version.origin.author.clone().unwrap_or_default(),
        created_ms: version.origin.at_ms.unwrap_or_default(),
    }
}

impl CatalogService {
    fn source_response(&self, name: &SourceName, catalog: &proto::Catalog) -> Result<Response<wire::Source>, Status> {
        Ok(Response::new(wire_source(name, find_source(catalog, name)?)))
    }
}
